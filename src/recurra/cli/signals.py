"""Ending a command that would go on for ever."""

import signal
import threading
from types import FrameType

__all__ = ["stop_signal"]


def stop_signal() -> threading.Event:
    """Return an event that SIGTERM and the first Ctrl-C set; a second Ctrl-C interrupts at once."""
    stopped = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopped
