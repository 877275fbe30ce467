"""Every code block of the README runs."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

import recurra

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
STAYS = "<!-- runs until stopped -->"


class Block(NamedTuple):
    language: str
    text: str
    stays: bool


def _blocks() -> list[Block]:
    found = re.finditer(r"(<!--[^\n]*-->\n)?```(\w*)\n(.*?)```", README, re.DOTALL)
    return [Block(match[2], match[3], (match[1] or "").strip() == STAYS) for match in found]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a directory with what the blocks name: a small file in the place of the data set."""
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    lines += [f"{i * 7 % 23}\t{i * 5 % 31}\t4\t{880_000_000 + 60 * i}" for i in range(400)]
    (tmp_path / "ml-100k.inter").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def environment(place: Path) -> dict[str, str]:
    """Put the command on the path."""
    folder = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONSAFEPATH": "1", "HOME": str(place)}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def _staying(command: str, url: str, place: Path, environment: dict[str, str]) -> Iterator[None]:
    log = place / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/livez").status_code == 200:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_every_block_runs(place: Path, environment: dict[str, str]) -> None:
    port = _free_port()
    done = []
    with contextlib.ExitStack() as stack:
        for block in _blocks():
            text = block.text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            if block.stays:
                stack.enter_context(_staying(text, f"http://127.0.0.1:{port}", place, environment))
            elif block.language == "bash" and text.startswith("make "):
                # running these here would never end; that the targets exist is what can be said
                subprocess.run(["make", "--dry-run", *text.split()[1:]], cwd=ROOT, check=True, capture_output=True)
            elif block.language in ("bash", "python"):
                program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
                ran = subprocess.run(
                    [*program, text],
                    cwd=place,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert ran.returncode == 0, f"{text}\n{ran.stdout}\n{ran.stderr}"
                assert '"error"' not in ran.stdout
            elif block.language == "toml":
                (place / "block.toml").write_text(text)
                assert recurra.load_config(place / "block.toml") != recurra.Config()
            else:
                pytest.fail(f"nobody knows how to run a block of {block.language or 'no language'}: {text}")
            done.append(block.language)
    assert {"bash", "python", "toml"} <= set(done)


def test_its_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_picture_is_small_enough_to_load() -> None:
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).stat().st_size < 300_000
