"""Whatever a command is doing when it is asked to stop, it stops."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

# a signal then often comes while the main thread holds the event's lock
WAITING = """
import threading
from recurra.cli.signals import stop_on_signal

stopped = threading.Event()
stop_on_signal(stopped)
print("waiting", flush=True)
while not stopped.wait(0):
    pass
"""
NEVER = """
import threading
import time
from recurra.cli.signals import stop_on_signal

stop_on_signal(threading.Event())
print("waiting", flush=True)
while True:
    time.sleep(0.01)
"""


def started(forker: Any, code: str, log: Path) -> Any:
    process = forker.start_code(code, (), log)
    deadline = time.monotonic() + 30
    while not log.exists() or "waiting" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_its_event_is_waited_for(forker: Any, tmp_path: Path, number: int) -> None:
    for start in range(30):
        process = started(forker, WAITING, tmp_path / f"{start}.log")
        try:
            process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_does_not_stop(forker: Any, tmp_path: Path, number: int) -> None:
    process = started(forker, NEVER, tmp_path / "log")
    os.kill(process.pid, number)
    time.sleep(0.2)
    assert process.poll() is None
    os.kill(process.pid, number)
    assert process.wait(10) != 0
