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
# arguments -> what the command did
Run = Callable[..., "Done"]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """What a failed command said: one sentence on standard error, nothing on standard output, no traceback."""
        assert self.code not in (0, 70)
        assert self.out == ""
        assert "Traceback" not in self.err
        assert "an error of recurra's own" not in self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("recurra: ").strip()


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

    return invoke


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

    return invoke


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
