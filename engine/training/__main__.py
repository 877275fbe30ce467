"""The training program: ``python -m recurra.engine.training --data DIR``. The engine starts it; see `protocol`."""

import argparse
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec
import torch

from ..errors import RecurraError
from ..versions import VersionStore
from .job import run_job
from .pace import Pace
from .protocol import Reply, Request

_PROGRESS_STEP = 0.05


def main() -> None:
    """Answer requests from standard input until it closes."""
    parser = argparse.ArgumentParser(prog="recurra.engine.training", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the engine's directory")
    parser.add_argument("--nice", type=int, default=0, help="how much this program steps back for others")
    arguments = parser.parse_args()
    # a Ctrl-C in the terminal is the engine's to act on; it closes our input then
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_input, daemon=True).start()
    os.nice(arguments.nice)
    replies = _own_output()
    requests = msgspec.json.Decoder(Request)
    for line in sys.stdin.buffer:
        _send(replies, _answer(requests.decode(line), arguments.data, replies))


def _end_with_input() -> None:
    """End the process when the other end of standard input is closed, also amid a training."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)
    poll.poll()
    os._exit(0)


def _own_output() -> BinaryIO:
    """Return standard output for replies alone: what libraries print goes to standard error from now on."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _send(replies: BinaryIO, reply: Reply) -> None:
    replies.write(msgspec.json.encode(reply) + b"\n")
    replies.flush()


def _answer(request: Request, data: Path, replies: BinaryIO) -> Reply:
    os.umask(request.store.hidden_bits)
    sent = 0.0
    pace = Pace(request.training.share * request.training.threads)

    def progress(share: float) -> None:
        nonlocal sent
        pace.keep()
        if share >= sent + _PROGRESS_STEP:
            sent = share
            _send(replies, Reply(request.id, progress=round(share, 3)))

    versions = VersionStore(data / "models")
    try:
        torch.set_num_threads(request.training.threads)
        with versions.lock():
            return Reply(request.id, report=run_job(request, data / "store", versions, progress))
    except RecurraError as error:
        return Reply(request.id, error=str(error))
    except MemoryError:
        return Reply(request.id, error="training ran out of memory; the serving version stays")
    except Exception as error:
        # the engine is informed and the program stays up
        return Reply(request.id, error=f"training failed ({type(error).__name__}: {error}); the serving version stays")


if __name__ == "__main__":
    main()
