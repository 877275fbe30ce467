"""Named places where the tests kill the process, and the deliberately broken build.

``RECURRA_FAILPOINT=name`` ends the process with SIGKILL when the step called ``name`` has just been done;
``name:3`` at the third time. ``RECURRA_BREAK=two-writes`` makes the store write offsets and histories in two
batches, so that the fault suite can show that it would notice. Both are read once, at import.
"""

import os
import signal

__all__ = ["TWO_WRITES", "failpoint"]

TWO_WRITES = os.environ.get("RECURRA_BREAK") == "two-writes"


def _armed() -> tuple[str, int]:
    name, _, count = os.environ.get("RECURRA_FAILPOINT", "").partition(":")
    return name, int(count) if count else 1


_name, _left = _armed()


def failpoint(name: str) -> None:
    """Kill this process if ``name`` is armed and was reached as often as asked; otherwise do nothing."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
