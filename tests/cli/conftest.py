"""The command line, in process and as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import recurra
from recurra.cli import main
from recurra.engine.config import TrainingConfig

START_MS = 1_700_000_000_000


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Run:
    """Runs commands; a command that fails fails the test, unless the test asks for the failure."""

    def __init__(self, invoke: Callable[..., Done]) -> None:
        self._invoke = invoke

    def __call__(self, *arguments: str | Path, **options: Any) -> Done:
        """Run a command that must succeed."""
        done = self._invoke(*arguments, **options)
        assert done.code == 0, f"{arguments} ended with status {done.code}: {done.err or done.out}"
        return done

    def failing(self, *arguments: str | Path, code: int, **options: Any) -> Done:
        """Run a command that must end with this status."""
        done = self._invoke(*arguments, **options)
        assert done.code == code, f"{arguments} ended with status {done.code}, not {code}: {done.err or done.out}"
        return done

    def refused(self, *arguments: str | Path, **options: Any) -> str:
        """Run a command that must fail, and return its one sentence on standard error."""
        done = self._invoke(*arguments, **options)
        assert done.code not in (0, 70)
        assert done.out == ""
        assert "Traceback" not in done.err
        assert "an error of recurra's own" not in done.err
        assert done.err.count("\n") == 1, done.err
        return done.err.removeprefix("recurra: ").strip()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def invoke(*arguments: str | Path) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return Run(invoke)


def command(arguments: Sequence[str | Path]) -> list[str]:
    """Return the command line of a process of its own."""
    return [sys.executable, "-m", "recurra.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment of a process of its own: the root's folders must not be importable."""
    return {**os.environ, "PYTHONSAFEPATH": "1"}


@pytest.fixture
def run_process() -> Run:
    """Run a command in a process of its own."""

    def invoke(*arguments: str | Path, timeout_s: float = 60, **options: Any) -> Done:
        done = subprocess.run(
            command(arguments),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(),
            check=False,
            **options,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return Run(invoke)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with 12 items and 8 users of 5 events each, without a version."""
    path = tmp_path_factory.mktemp("cli") / "data"
    with recurra.open(path, recurra.Config(training=TrainingConfig(mode="off"))) as engine:
        engine.ingest(recurra.Item(f"m{i}", f"Title {i}", ("Drama",) if i % 2 else ("Comedy",)) for i in range(12))
        engine.ingest(
            recurra.Event(f"u{i % 8}", f"m{i * 5 % 12}", START_MS + i * 1_000, "play", 0.5) for i in range(40)
        )
    return path
