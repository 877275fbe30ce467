"""Ingest: the write path, by which alone anything changes."""

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .clock import Clock
from .config import Config
from .events import FIRST_LIKELY_S, LAST_LIKELY_S, Event, Forget, Item
from .failpoints import failpoint
from .metrics import Metrics
from .monitoring.judge import Judged, QualityMonitor
from .query import Queries, Ranked
from .results import IngestReport, Record
from .serving.caches import Caches
from .store import APPLIED, DUPLICATE, LATE, TOO_LATE, Applied, Batch, Store

__all__ = ["Ingest", "Refused"]

Refused = Callable[[int, str], None]

_log = logging.getLogger(__name__)

_SAMPLE_SPACE = 1 << 32


class _Sample(NamedTuple):
    """An event that the mixture learns from: its candidates before it was applied, its item's row, its judgement."""

    ranked: Ranked
    item: int | None
    judged: Judged


class Ingest:
    """Applies records in micro-batches; the engine calls it under its write lock. The commit order of each:

    1. **decode and check**: the records become columns; an event too far in the future is refused, and the source is
       informed, before anything moves past it;
    2. **plan**: ids become rows, duplicates and too late events drop out, every other event gets its place in its
       user's history;
    3. **learn**: the mixture learns from a sampled event that was accepted;
    4. **commit**: histories, counters, seen sets, log, ids, mixture and next offsets in one atomic batch: the truth;
    5. **advance**: states and fast memory, which are caches: a failure here drops the states concerned and no data;
    6. **answer**: queries see the new states and counts;
    7. **report**: the connector reports the synced offsets to the consumer group, for lag monitors only.

    A crash before 4 leaves nothing of the batch, and the source is read again from the stored offset; a crash after 4
    loses only caches, which are folded again from the truth. 6 is ``Queries``, 7 the connector's.
    """

    def __init__(
        self,
        store: Store,
        caches: Caches,
        queries: Queries,
        monitor: QualityMonitor,
        clock: Clock,
        config: Config,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._caches = caches
        self._queries = queries
        self._monitor = monitor
        self._clock = clock
        self._config = config
        self._metrics = metrics
        self._warned = False
        self._sample_below = int(min(1.0, max(0.0, config.mix.sample)) * _SAMPLE_SPACE)

    def apply(self, records: Sequence[Record], refused: Refused | None) -> IngestReport:
        """Apply records in their order and return what became of them."""
        report = IngestReport(users=[])
        touched: dict[str, None] = {}
        for start, stop in self._cuts(records):
            self._micro_batch(records, start, stop, refused, report, touched)
        report.users = list(touched)
        return report

    def note_source(self, source: str, info: bytes, offset: int | None) -> None:
        """Commit a fact about a source, and where it starts."""
        batch = Batch.of([])
        batch.source_info[source] = info
        if offset is not None:
            batch.offsets[source] = offset
        self._store.apply(batch, self._clock.now_ms())

    def _cuts(self, records: Sequence[Record]) -> Iterator[tuple[int, int]]:
        """Cut where the mixture is about to learn, before a forget request, and at the bounds of a batch.

        The mixture scores an event with everything before it applied, so such an event begins a batch: how the
        records came in then makes no difference to what is learnt.
        """
        limit = max(1, self._config.store.batch_events)
        start = 0
        for i, record in enumerate(records):
            value = record.value
            cut = isinstance(value, Forget) or (isinstance(value, Event) and self._sampled(value))
            if i > start and (cut or i - start >= limit):
                yield start, i
                start = i
        if start < len(records):
            yield start, len(records)

    def _sampled(self, event: Event) -> bool:
        if self._sample_below == 0:
            return False
        key = f"{event.time_ms}\0{event.item}\0{event.user}"
        return zlib.crc32(key.encode()) < self._sample_below

    def _micro_batch(
        self,
        records: Sequence[Record],
        start: int,
        stop: int,
        refused: Refused | None,
        report: IngestReport,
        touched: dict[str, None],
    ) -> None:
        now_ms = self._clock.now_ms()
        # 1. decode and check
        batch, first = self._decode(records, start, stop, now_ms, refused, report)
        failpoint("engine.decoded")
        sample = self._rank_sample(first) if first is not None and self._sampled(first) else None
        contexts = self._caches.contexts_before([self._store.users.row(user) for user in batch.users])
        before = None if sample is None else self._caches.mix.state()
        try:
            # 2. plan
            with self._metrics.commit_seconds.time(), self._store.plan(batch, now_ms) as plan:
                # 3. learn
                mix = None if sample is None else self._mix_update(sample, plan.status)
                # 4. commit
                applied = plan.commit(mix)
        except BaseException:
            # a batch that was not committed was not learnt either
            if before is not None:
                self._caches.mix.restore(before)
            raise
        failpoint("engine.committed")
        # 5. advance
        with self._metrics.advance_seconds.time():
            self._caches.advance(applied, contexts)
        self._monitor.record(None if sample is None else sample.judged, applied)
        failpoint("engine.advanced")
        self._count(batch, applied, report, touched)

    def _decode(
        self,
        records: Sequence[Record],
        start: int,
        stop: int,
        now_ms: int,
        refused: Refused | None,
        report: IngestReport,
    ) -> tuple[Batch, Event | None]:
        """Turn records into columns; also return the first of them if it is an event that is not refused."""
        latest_ms = now_ms + self._config.store.future_tolerance_ms
        events: list[Event] = []
        partitions: list[int] = []
        batch = Batch.of([])
        for i in range(start, stop):
            record = records[i]
            value = record.value
            if record.source:
                batch.offsets[record.source] = record.next_offset
            match value:
                case Event(time_ms=time_ms) if time_ms > latest_ms:
                    report.future += 1
                    if refused is not None:
                        refused(i, f"the time of the event is {time_ms - now_ms} ms ahead of the clock")
                case Event():
                    events.append(value)
                    partitions.append(record.partition)
                case Item():
                    batch.catalogue.append((len(events), value))
                    report.items += 1
                case Forget(user):
                    batch.forgets.append(user)
                case None:
                    report.skipped += 1
        columns = Batch.of(events)
        columns.partitions = np.array(partitions, np.int32)
        columns.offsets, columns.catalogue, columns.forgets = batch.offsets, batch.catalogue, batch.forgets
        first = events[0] if events and events[0] is records[start].value else None
        self._suspect(columns.times_ms)
        return columns, first

    def _suspect(self, times_ms: npt.NDArray[np.int64]) -> None:
        """Count times that look like seconds, and warn of the first."""
        if not times_ms.size or times_ms.min() >= LAST_LIKELY_S:
            return
        found = times_ms[(times_ms >= FIRST_LIKELY_S) & (times_ms < LAST_LIKELY_S)]
        self._metrics.suspect_times.inc(len(found))
        if len(found) and not self._warned:
            self._warned = True
            _log.warning(
                "an event has the time %d ms, which is in early 1970: are the times of this source seconds? Then set "
                'events.time_unit = "s" and build the store again',
                found[0],
            )

    def _rank_sample(self, event: Event) -> _Sample:
        """Rank and judge an event that is about to be applied, with everything before it applied."""
        ranked, item = self._queries.ranked_before(event), self._store.items.row(event.item)
        return _Sample(ranked, item, self._monitor.score(event, ranked, item))

    def _mix_update(self, sample: _Sample, status: npt.NDArray[np.uint8]) -> bytes | None:
        """Let the mixture learn from the first event of a batch if it was accepted; returns what it knows then."""
        if status[0] > LATE:
            return None
        self._queries.learn(sample.ranked, sample.item)
        return self._caches.mix.state()

    def _count(self, batch: Batch, applied: Applied, report: IngestReport, touched: dict[str, None]) -> None:
        status = applied.status.tolist()
        counts = {kind: status.count(kind) for kind in (APPLIED, LATE, DUPLICATE, TOO_LATE)}
        report.applied += counts[APPLIED] + counts[LATE]
        report.late += counts[LATE]
        report.duplicate += counts[DUPLICATE]
        report.too_late += counts[TOO_LATE]
        report.moved += applied.moved
        report.forgotten += len(applied.forgotten)
        touched.update(dict.fromkeys(user for user, kind in zip(batch.users, status, strict=True) if kind <= LATE))
