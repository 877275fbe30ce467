"""Every command explains itself, quickly."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import recurra
from recurra.cli import main

from .conftest import Run, command, environment

COMMANDS = [
    "demo",
    "init",
    "run",
    "replay",
    "evaluate",
    "recommend",
    "similar",
    "history",
    "forget",
    "train",
    "versions",
    "rollback",
    "digest",
    "audit",
    "doctor",
    "verify",
    "bench encode",
    "bench step",
    "bench ingest",
    "bench query",
    "bench hostile",
    "bench train",
    "bench kernels",
    "bench continual",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(run: Run, name: str) -> None:
    done = run(*name.split(), "--help")
    assert f"Example: recurra {name}" in " ".join(done.out.split())


def test_all_commands_are_listed(run: Run) -> None:
    done = run("--help")
    listed = set(re.findall(r"^  (\w+)  ", done.out.split("Commands:")[1], re.M))
    assert listed == {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize("group", [[], ["bench"]])
def test_no_line_of_the_list_is_cut(run: Run, group: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert "..." not in run(*group, "--help").out.split("Commands:")[1]


def test_a_shell_completes_commands() -> None:
    asked = environment() | {"_RECURRA_COMPLETE": "complete_bash", "COMP_WORDS": "recurra re", "COMP_CWORD": "1"}
    done = subprocess.run(command([]), capture_output=True, text=True, timeout=60, env=asked)
    assert done.stdout.split() == ["replay", "recommend"]


def test_help_does_not_load_the_engine() -> None:
    # what makes a start slow is loading torch, numba and the like
    script = "import sys\nfrom recurra.cli import main\ntry: main(['--help'])\nfinally: print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment()
    )
    assert not {"torch", "numba", "numpy", "fastapi", "faiss", "rocksdict", "polars"} & set(done.stdout.split())


def test_version(run: Run) -> None:
    assert run("--version").out.strip() == f"recurra {recurra.__version__}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["recommend"], "Missing argument 'USER'"),
        (["recommend", "u1", "-k", "many"], "'-k': Input should be a valid integer"),
        (["recommend", "u1", "--nonsense"], "No such option"),
        (["rollback", "one"], "'N': Input should be a valid integer"),
        (["demo", "--port", "70000"], "less than or equal to 65535"),
    ],
)
def test_what_is_not_understood(run: Run, arguments: list[str], words: str) -> None:
    done = run.failing(*arguments, code=2)
    assert done.out == ""
    assert words in done.err
    assert "Traceback" not in done.err


def test_an_error_of_our_own_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_path: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("recurra.engine.config.load_config", broken)
    done = run.failing("history", "u1", "--data", tmp_path, code=1)
    assert "an error of recurra's own: ZeroDivisionError: oops (RECURRA_TRACEBACK=1 shows where)" in done.err
    assert done.err.count("\n") == 1
    monkeypatch.setenv("RECURRA_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["history", "u1", "--data", str(tmp_path)])


def test_init_writes_every_default(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "recurra.toml"
    run("init", path)
    assert recurra.load_config(path) == recurra.Config()
    text = path.read_text()
    for field in msgspec.structs.fields(recurra.Config):
        section = field.default
        if isinstance(section, msgspec.Struct):
            assert f"[{field.name}]" in text
            part = text.split(f"[{field.name}]")[1].split("\n[")[0]
            assert all(re.search(rf"^(# )?{name} = ", part, re.M) for name in section.__struct_fields__)
    assert "is there already" in run.refused("init", path)
    run("init", path, "--force")


def test_a_pipe_that_closes_is_no_error() -> None:
    process = subprocess.Popen(
        command(["--help"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(30)
