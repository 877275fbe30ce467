"""Every code block of README and documents runs, or says why not and is checked for options that do not exist."""

import contextlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import recurra
from recurra.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STAYS = "runs until stopped"
NOT_RUN = "not run: "
# nothing in them could be run
SHOWN = {"text", "mermaid", "pycon"}
_BLOCK = re.compile(r"^(?:<!-- (?P<note>[^\n]*) -->\n\n?)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.M)
_COMMAND_LINE: Any = typer.main.get_command(app)


class Block(NamedTuple):
    language: str
    text: str
    note: str

    @property
    def runs(self) -> bool:
        return self.language not in SHOWN and not self.note.startswith(NOT_RUN)


def _blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text())
    return [Block(match["language"], match["text"], match["note"] or "") for match in found]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


RUNNING = [page for page in PAGES if any(block.runs for block in _blocks(page))]


@pytest.mark.parametrize("page", RUNNING, ids=_name)
def test_every_block_runs(
    page: Path,
    place: Path,
    environment: dict[str, str],
    port: int,
    service: Callable[[str, int], AbstractContextManager[None]],
) -> None:
    with contextlib.ExitStack() as stack:
        for block in filter(lambda block: block.runs, _blocks(page)):
            text = block.text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            if block.note == STAYS:
                stack.enter_context(service(text, port))
            elif block.language == "bash" and text.startswith("make "):
                # running these here would never end; that the targets exist is what can be said
                subprocess.run(["make", "--dry-run", *text.split()[1:]], cwd=ROOT, check=True, capture_output=True)
            elif block.language == "bash":
                _run(["bash", "-euo", "pipefail", "-c", text], place, environment)
            elif block.language == "python":
                _run([sys.executable, "-W", "error", "-c", text], place, environment)
            elif block.language == "toml":
                (place / "block.toml").write_text(text)
                assert recurra.load_config(place / "block.toml") != recurra.Config(), text
            elif block.language == "json":
                json.loads(text)
            else:
                pytest.fail(f"there is no way to run a block of {block.language or 'no language'}: {text}")


def _run(command: list[str], place: Path, environment: dict[str, str]) -> None:
    ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, f"{command[-1]}\n{ran.stdout}\n{ran.stderr}"
    assert '"error"' not in ran.stdout


def test_readme_shows_every_language() -> None:
    assert {"bash", "python", "toml"} <= {block.language for block in _blocks(ROOT / "README.md")}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_what_is_not_run_exists(page: Path) -> None:
    for block in _blocks(page):
        if not block.note.startswith(NOT_RUN):
            continue
        assert len(block.note) > len(NOT_RUN) + 10, f"say why it is not run: {block.text}"
        if block.language == "python":
            compile(block.text, _name(page), "exec")
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "bash":
            for words in _commands(block.text):
                _check(words, complete=True)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_inside_sentences_exist(page: Path) -> None:
    prose = _BLOCK.sub("", page.read_text())
    for text in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose):
        if text.startswith(("recurra ", "make ", "pytest ", "python -m recurra")):
            for words in _commands(text):
                _check(words, complete=False)


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a shell text, without settings of variables before them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        for part in re.split(r"&&|;|\|(?= )", "" if line.startswith("#") else line):
            words = [word for word in shlex.split(part, comments=True) if word not in ("...", "&")]
            while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "timeout"):
                words = words[2:] if words[0] == "timeout" else words[1:]
            if words:
                yield words


def _check(words: list[str], *, complete: bool) -> None:
    match words:
        case ["recurra", *arguments]:
            _check_arguments(arguments, complete=complete)
        case ["make", target, *_]:
            goal = target.split("=")[0]
            assert re.search(rf"^{re.escape(goal)}\b", (ROOT / "Makefile").read_text(), re.M), f"make {target}"
        case ["pytest", *arguments]:
            for argument in arguments:
                assert not argument.startswith("tests/") or (ROOT / argument.split("::")[0]).exists(), argument
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None, module
        case ["python", script, *_] if script.endswith(".py"):
            assert (ROOT / script).exists(), script


def _check_arguments(arguments: list[str], *, complete: bool) -> None:
    """Let the command line read its arguments; a sentence may leave out what a command must have."""
    command = _COMMAND_LINE
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"there is no command {' '.join(arguments)}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if hasattr(command, "commands") or arguments in (["--help"], ["-h"]):
        return
    try:
        command.make_context(command.name, list(arguments))
    except Exception as error:
        # the classes of click are typer's own or not, by its release
        forgiven = () if complete else ("MissingParameter", "BadParameter", "BadArgumentUsage")
        if type(error).__name__ not in forgiven:
            raise AssertionError(f"recurra {command.name} {' '.join(arguments)}: {error}") from error


def test_the_check_finds_what_does_not_exist() -> None:
    for wrong in ("recurra replay PATH --nonsense 3", "recurra nonsense", "make nonsense", "pytest tests/none.py"):
        (words,) = _commands(wrong)
        with pytest.raises(AssertionError):
            _check(words, complete=False)


def test_the_picture_is_small_enough_to_load() -> None:
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert (ROOT / picture).stat().st_size < 300_000
