"""Records in: the one path by which anything changes."""

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .clock import Clock
from .config import Config
from .events import Event, Forget, Item
from .failpoints import failpoint
from .metrics import Metrics
from .monitoring.judge import Watch
from .query import Queries, Ranked
from .results import IngestReport, Record
from .serving.caches import Caches
from .store import APPLIED, DUPLICATE, LATE, TOO_LATE, Applied, Batch, Store

__all__ = ["Ingest", "Refused"]

Refused = Callable[[int, str], None]

_SAMPLE_SPACE = 1 << 32


class Ingest:
    """Applies records in micro-batches; the engine calls it under its write lock. The commit order of each:

    1. **decode and check**: the records become columns; an event too far in the future is refused, and whoever reads
       the source is told, before anything moves past it;
    2. **order**: ids become rows, duplicates and too late events drop out, every other event gets its place in its
       user's history;
    3. **commit**: histories, counters, seen sets, log, ids, mixture and next offsets in one atomic batch: the truth;
    4. **advance**: states and fast memory, which are caches: a failure here drops the states concerned and no data;
    5. **answer**: queries see the new states and counts;
    6. **report**: the connector tells the consumer group the synced offsets, for lag monitors only.

    A crash before 3 leaves nothing of the batch, and the source is read again from the stored offset; a crash after 3
    loses only caches, which are folded again from the truth. Steps 2 and 3 are ``Store.apply``; 6 is the connector's.
    """

    def __init__(
        self,
        store: Store,
        caches: Caches,
        queries: Queries,
        watch: Watch,
        clock: Clock,
        config: Config,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._caches = caches
        self._queries = queries
        self._watch = watch
        self._clock = clock
        self._config = config
        self._metrics = metrics
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
        batch, first = self._decode(records, start, stop, now_ms, refused, report)
        failpoint("engine.decoded")
        judged = None
        if first is not None and self._sampled(first):
            ranked, item = self._queries.ranked_before(first), self._store.items.row(first.item)
            judged = self._watch.judge(first, ranked, item)
            batch.mix = self._lesson(ranked, item)
        contexts = self._caches.contexts_before([self._store.users.row(user) for user in batch.users])
        mixture = self._caches.mix.state() if batch.mix is not None else None
        try:
            with self._metrics.commit_seconds.time():
                applied = self._store.apply(batch, now_ms)
        except BaseException:
            # what was not committed was not learnt
            if mixture is not None:
                self._caches.mix.restore(mixture)
            raise
        failpoint("engine.committed")
        with self._metrics.advance_seconds.time():
            self._caches.advance(applied, contexts)
        self._watch.learnt(judged, applied)
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
        return columns, first

    def _lesson(self, ranked: Ranked, item: int | None) -> Callable[[npt.NDArray[np.uint8]], bytes | None]:
        """Let the mixture learn from an event, ranked as things stand now, once it was accepted."""

        def learn(status: npt.NDArray[np.uint8]) -> bytes | None:
            if status[0] > LATE:
                return None
            self._queries.learn(ranked, item)
            return self._caches.mix.state()

        return learn

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
