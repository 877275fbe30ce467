"""One request to the training program: read the log, train a round, publish what passed."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..config import Config
from ..errors import RecurraError, StoreError, StoreFencedError, TrainingError
from ..events import Item
from ..results import REFUSED, TrainReport
from ..store import Reader
from ..versions import VersionStore
from .protocol import Request
from .rounds import Round, train_round
from .windows import UserLog

__all__ = ["run_job"]

_READS = 3


def run_job(request: Request, store: Path, versions: VersionStore, progress: Callable[[float], None]) -> TrainReport:
    """Answer a request; the caller holds the lock of ``versions``.

    The store is read beside its writer. Raises a ``RecurraError`` with a sentence for the user; current version and
    everything published before are then as they were.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    log, item_ids, records, store_id = _read(request, store, versions)
    number = versions.current()
    config = Config(
        store=request.store,
        model=request.model,
        training=request.training,
        gate=request.gate,
        retrieval=request.retrieval,
    )
    parent = versions.load(number) if number else None
    given = Round(log, item_ids, parent, config, versions.attempted(), records, request.effort)
    outcome = train_round(given, progress=progress)

    def finished(number: int) -> TrainReport:
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        return msgspec.structs.replace(outcome.report, number=number, seconds=round(seconds, 3), cpu_s=round(cpu_s, 3))

    def guard() -> None:
        with _reader(request, store, versions) as reader:
            epoch = reader.epoch
        if epoch != request.epoch:
            raise StoreFencedError(
                f"the store has a new owner (epoch {epoch}, the training began under {request.epoch}); "
                "its version was not published"
            )

    published = 0
    if outcome.model is not None:
        published = versions.publish(
            outcome.model,
            outcome.vocabulary,
            parent=outcome.report.parent,
            cutoff_seq=outcome.report.cutoff_seq,
            store_id=store_id,
            report=finished,
            guard=guard,
        )
    # a full disk here costs room and a little effort next time, and must not hide that a version was published
    with contextlib.suppress(OSError, RecurraError):
        versions.prune(request.training.keep_versions)
        if outcome.report.verdict == REFUSED:
            versions.add_refusal(finished(0))
        if outcome.report.steps:
            versions.set_attempted(outcome.report.newest_seq)
    return finished(published)


def _read(
    request: Request, path: Path, versions: VersionStore
) -> tuple[UserLog, list[str | None], list[Item | None], str]:
    """Read log, item ids, item records and store id as committed; again if the writer deletes a file meanwhile."""
    for attempt in range(1, _READS + 1):
        try:
            with _reader(request, path, versions) as store:
                last, until = store.next_seq - 1, request.until_seq
                if until is not None and until > last:
                    raise TrainingError(f"training up to event {until} was asked for, the log ends at {last}")
                log = UserLog.read(store.log(), until)
                rows = range(len(store.items))
                return log, store.items.ids(rows), [store.items.record(row) for row in rows], store.store_id
        except StoreError:
            if attempt == _READS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _reader(request: Request, path: Path, versions: VersionStore) -> Reader:
    # no histories are read, so that no room for them is needed; the notes lie where the lock keeps others out
    config = msgspec.structs.replace(request.store, hot_histories=1)
    return Reader.open(path, config, secondary=versions.path / ".reader")
