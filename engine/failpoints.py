"""Named places where the tests kill the process, and the deliberately broken build.

``RECURRA_FAILPOINT=name`` ends the process with SIGKILL when the step called ``name`` has just been done;
``name:3`` at the third time. ``RECURRA_BREAK=two-writes`` makes the store write offsets and histories in two
batches, so that the fault suite can show that it would notice; ``two-writes:0.01`` waits so many seconds between them.
Both are read at import, and again by `arm`.
"""

import os
import signal

__all__ = ["arm", "failpoint", "pause_between_writes"]

_name, _left = "", 0
_pause_s: float | None = None


def arm() -> None:
    """Read the environment: at import, and in a process that was forked from one with another environment."""
    global _name, _left, _pause_s
    name, _, count = os.environ.get("RECURRA_FAILPOINT", "").partition(":")
    _name, _left = name, int(count) if count else 1
    broken, _, seconds = os.environ.get("RECURRA_BREAK", "").partition(":")
    _pause_s = float(seconds or 0) if broken == "two-writes" else None


def pause_between_writes() -> float | None:
    """Return how many seconds the broken build waits between its two writes, None in a sound one."""
    return _pause_s


def failpoint(name: str) -> None:
    """Kill this process if ``name`` is armed and was reached as often as asked; otherwise do nothing."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


arm()
