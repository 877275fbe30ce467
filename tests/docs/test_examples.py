"""Examples run as they stand, and print what they promise."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(place: Path, environment: dict[str, str]) -> Callable[..., str]:
    """Run an example in an empty directory, as a reader does; returns what it printed."""
    # without the safe path the folder of the example is searched first: a name of its own must hide no library
    theirs = {name: value for name, value in environment.items() if name != "PYTHONSAFEPATH"}

    def started(name: str, *arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments],
            cwd=place,
            env=theirs,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    return started


def test_embedded(run: Callable[..., str]) -> None:
    lines = run("embedded.py").splitlines()
    assert lines[0] == "applied 4 events"
    assert lines[1].startswith("for cid: [('m2', 'Harbour Lights')")
    assert "m2" not in lines[-1].partition(", after m2:")[2]


def test_http(run: Callable[..., str], port: int, service: Callable[[str, int], AbstractContextManager[None]]) -> None:
    with service(f"recurra run --source none --data http-data --api 127.0.0.1:{port} --train off", port):
        text = run("http_client.py", f"http://127.0.0.1:{port}")
    assert "applied 4" in text
    assert "status: ok" in text


def test_replay(run: Callable[..., str]) -> None:
    text = run("replay.py")
    assert "recurra" in text
    assert "400 of 1500 events ranked" in text


@pytest.mark.kafka
def test_kafka(run: Callable[..., str], address: str) -> None:
    text = run("kafka_topics.py", address)
    assert {line.split()[1] for line in text.splitlines()} == {"ann:", "bob:", "cid:"}
