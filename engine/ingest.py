"""Ingest: the write path, by which alone anything changes."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .clock import Clock
from .config import Config
from .events import FIRST_LIKELY_S, LAST_LIKELY_S, Event, Forget, Item
from .failpoints import failpoint
from .fast import BLOCK, Moment
from .metrics import Metrics
from .monitoring.judge import Beside, Judged, QualityMonitor
from .query import Queries
from .ranked import Ranked
from .results import IngestReport, Record
from .serving.caches import Caches
from .states import anchor
from .store import APPLIED, DUPLICATE, LATE, TOO_LATE, Applied, Batch, Store

__all__ = ["Ingest", "Refused", "Writing"]

Refused = Callable[[int, str], None]

_log = logging.getLogger(__name__)


class _Lesson(NamedTuple):
    """An event that the mixture learns from, read before it is applied: how to rank for it, and its item's row."""

    rank: Callable[[Moment], Ranked]
    item: int | None
    beside: Beside | None


class Ingest:
    """Applies records in micro-batches; the engine calls it under its write lock. The commit order of each:

    1. **decode and check**: the records become columns; an event too far in the future is refused, and the source is
       informed, before anything moves past it;
    2. **plan**: ids become rows, duplicates and too late events drop out, every other event gets its place in its
       user's history;
    3. **learn**: the fast memory takes in the events one by one, and right before those that are lessons the mixture
       learns how it would have ranked them;
    4. **commit**: histories, counters, seen sets, log, ids, mixture and next offsets in one atomic batch: the truth;
    5. **advance**: the states, which are caches: a failure here drops those concerned and no data;
    6. **answer**: queries see the new states and counts;
    7. **report**: the connector reports the synced offsets to the consumer group, for lag monitors only.

    A crash before 4 leaves nothing of the batch, and the source is read again from the stored offset; a crash after 4
    loses only caches, which are folded again from the truth; so is the fast memory after a commit that failed.
    6 is ``Queries``, 7 the connector's.
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
        """Cut where a lesson needs what came before it to be applied, before forget requests, at the bounds of a batch.

        The mixture learns from an event with everything before it applied, so that how the records came in makes no
        difference: a lesson begins a batch if something before it in the batch is of its user, brings an item, or
        belongs to another block of the error memory; every event does after a catalogue record. No batch goes beyond a
        block of lessons.
        """
        lessons, start = self._caches.lessons, 0
        while start < len(records):
            # what was cut before is applied by now
            seq = self._store.next_seq
            stop = min(len(records), start + max(1, self._config.store.batch_events), start + lessons.left(seq))
            yield start, (start := self._cut(records, start, stop, seq))

    def _cut(self, records: Sequence[Record], start: int, stop: int, seq: int) -> int:
        """Return where the batch that begins with record ``start``, and event ``seq``, has to end."""
        items, lessons = self._store.items, self._caches.lessons
        block_end = seq + BLOCK - seq % BLOCK
        users: set[str] = set()
        fresh = described = False
        for i in range(start, stop):
            value = records[i].value
            if isinstance(value, Event):
                if described:
                    return i
                if i > start and lessons.chosen(value) and (fresh or value.user in users or seq >= block_end):
                    return i
                seq += 1
                users.add(value.user)
                fresh = fresh or value.item not in items
            elif isinstance(value, Forget) and i > start:
                return i
            elif value is not None:
                described = True
        return stop

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
        caches = self._caches
        caches.catch_up()
        # 1. decode and check
        batch, events = self._decode(records, start, stop, now_ms, refused, report)
        failpoint("engine.decoded")
        lessons = {place: self._before(event) for place, event in enumerate(events) if caches.lessons.chosen(event)}
        contexts = caches.contexts_before([self._store.users.row(user) for user in batch.users])
        known = caches.mix_state()
        judged: dict[int, Judged] = {}
        try:
            # 2. plan
            with self._metrics.commit_seconds.time(), self._store.plan(batch, now_ms) as plan:
                # 3. learn
                planned = plan.applied
                described = {row: item for row, (_, item) in zip(planned.catalogue, batch.catalogue, strict=True)}
                teach = partial(self._teach, planned, self._renewals(planned), lessons, judged)
                caches.learn(planned, contexts, lessons, teach, described)
                changed = self._end_block(planned) or judged
                # 4. commit
                applied = plan.commit(caches.mix_state() if changed else None)
        except BaseException:
            caches.undo(known)
            raise
        failpoint("engine.committed")
        # 5. advance
        with self._metrics.advance_seconds.time():
            caches.advance(applied)
        self._monitor.record(judged, applied)
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
    ) -> tuple[Batch, list[Event]]:
        """Turn records into columns; also return the events."""
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
        self._suspect(columns.times_ms)
        return columns, events

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

    def _before(self, event: Event) -> _Lesson:
        """Read what ranking for an event takes, with everything applied that is of its user or of items."""
        item = self._store.items.row(event.item)
        return _Lesson(self._queries.before(event), item, self._monitor.before(event, item))

    def _teach(
        self,
        planned: Applied,
        renewals: npt.NDArray[np.intp],
        lessons: Mapping[int, _Lesson],
        judged: dict[int, Judged],
        event: int,
    ) -> None:
        """Let the mixture learn from an event, all before it being learnt, and judge what would have been answered."""
        lesson = lessons[event]
        renewed = planned.user_rows[renewals[renewals < event]]
        ranked = lesson.rank(Moment(int(planned.seq[event]), renewed))
        place = ranked.place(lesson.item)
        judged[event] = Judged(*self._monitor.score(ranked, place), lesson.beside)
        self._queries.learn(ranked, place)

    def _renewals(self, planned: Applied) -> npt.NDArray[np.intp]:
        """Return which events of a batch give their users a new anchor."""
        n, interval = planned.n, self._config.store.anchor
        return np.flatnonzero((planned.status <= LATE) & (anchor(n, interval) != anchor(n - 1, interval)))

    def _end_block(self, planned: Applied) -> bool:
        """Let a new block of lessons begin where one ends with this batch; return whether it did."""
        accepted = np.flatnonzero(planned.status <= LATE)
        if not accepted.size:
            return False
        return self._caches.lessons.passed(planned.next_seq, int(planned.times_ms[accepted[-1]]))

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


class Writing(NamedTuple):
    """What an engine that was opened for reading does not have."""

    store: Store
    ingest: Ingest
