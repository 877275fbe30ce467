"""A directory as a reader of the documents has it, and the service as a process beside it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

Service = Callable[[str, int], AbstractContextManager[None]]


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


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def service(place: Path, environment: dict[str, str]) -> Service:
    """Run a command that stays, from the moment that it answers on a port until SIGTERM."""

    @contextlib.contextmanager
    def run(command: str, port: int) -> Iterator[None]:
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
            deadline = time.monotonic() + 120
            while not _answers(port):
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

    return run


def _answers(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    return False
