"""A program that has everything imported and forks processes: a start then takes no imports.

It answers one JSON line for each on its standard input. ``{"argv": [...], "env": {...}, "log": PATH}`` starts a command
of recurra, with ``"code"`` that Python code, and gives its ``pid``; ``{"poll": PID}`` gives its ``status`` as of
subprocess (None while it runs). Nothing here may start a thread before it forks.
"""

import json
import os
import signal
import sys
import threading
from typing import Any


def child(request: dict[str, Any]) -> None:
    """Become the command; never returns."""
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # a signal to the tests' terminal is not for it, but one of its own is
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(request["env"])
    from recurra.cli import main
    from recurra.engine import failpoints

    failpoints.arm()
    status = 1
    try:
        if request["code"] is None:
            main(request["argv"])
        else:
            sys.argv = ["-c", *request["argv"]]
            exec(request["code"], {"__name__": "__main__"})
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    if "poll" in request:
        pid, status = os.waitpid(request["poll"], os.WNOHANG)
        return {"status": os.waitstatus_to_exitcode(status) if pid else None}
    pid = os.fork()
    if pid == 0:
        child(request)
    return {"pid": pid}


def load() -> None:
    """Import all that the service would, and load its compiled functions."""
    import faiss  # noqa: F401
    import numba
    import torch

    import recurra.cli.demo
    import recurra.cli.run
    import recurra.connectors.kafka.confluent
    import recurra.connectors.kafka.kafka_python
    import recurra.connectors.service
    import recurra.engine.engine  # noqa: F401
    from recurra.engine.monitoring.drift import preload

    preload()
    torch.set_num_threads(1)
    # most of the first call of a compiled function is what numba imports for it
    numba.njit(lambda number: number + 1)(1)


def main() -> None:
    """Serve until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load()
    running = threading.enumerate()
    assert len(running) == 1, running
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


main()
