"""Ending a command that would go on for ever."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

__all__ = ["stop_on_signal", "terminable"]


def stop_on_signal(stopped: threading.Event) -> None:
    """Let SIGTERM and the first Ctrl-C set an event; a second one ends the process at once."""
    asked: SimpleQueue[None] = SimpleQueue()

    def stop(number: int, _frame: FrameType | None) -> None:
        # setting the event here could wait for ever: the thread that was interrupted may hold its lock
        asked.put(None)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def wait() -> None:
        asked.get()
        stopped.set()

    threading.Thread(target=wait, name="recurra-signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what it opened is closed and what it made is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
