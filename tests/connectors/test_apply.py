"""The path between a source and the engine when things go wrong, with an engine that fails on purpose."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from recurra.connectors.apply import Applier, Origin, SourceStoppedError
from recurra.engine.config import StoreConfig
from recurra.engine.errors import InputError, StoreFencedError, StoreFullError
from recurra.engine.events import Event
from recurra.engine.results import IngestReport, Record


class ListEngine:
    """Keeps values and offsets in lists; ``fail`` may raise before a record is applied."""

    def __init__(self, fail: Callable[["ListEngine", Record], None] = lambda engine, record: None) -> None:
        self.values: list[str] = []
        self.batches: list[int] = []
        self.stored: dict[str, int] = {}
        self.reopened = 0
        self._fail = fail

    def apply(self, records: Sequence[Record], *, refused: Callable[[int, str], None] | None = None) -> IngestReport:
        report = IngestReport(users=[])
        # like the engine's, micro-batches of two records are atomic and the call is not
        for start in range(0, len(records), 2):
            part = records[start : start + 2]
            for record in part:
                self._fail(self, record)
            for index, record in enumerate(part, start):
                if isinstance(record.value, Event) and record.value.user == "future":
                    assert refused is not None
                    refused(index, "in the future")
                elif isinstance(record.value, Event):
                    self.values.append(record.value.item)
                    report.applied += 1
                self.stored[record.source] = record.next_offset
        self.batches.append(len(records))
        return report

    def offsets(self) -> dict[str, int]:
        return self.stored

    def synced_offsets(self) -> dict[str, int]:
        return self.stored

    def source_info(self) -> dict[str, bytes]:
        return {}

    def set_source_info(self, source: str, info: bytes, *, offset: int | None = None) -> None:
        raise NotImplementedError

    def reopen(self) -> None:
        self.reopened += 1


class Letters:
    def __init__(self, failures: int = 0) -> None:
        self.kept: list[tuple[int, str]] = []
        self.safe = 0
        self._failures = failures

    def write(self, source: str, position: int, payload: bytes | None, reason: str) -> None:
        self.kept.append((position, reason))

    def flush(self) -> None:
        if self._failures:
            self._failures -= 1
            raise OSError("no room for letters")
        self.safe = len(self.kept)

    def close(self) -> None:
        self.flush()


def batch(count: int, user: str = "u") -> tuple[list[Record], list[Origin]]:
    records = [Record(Event(user, f"i{at}", at), "s", at + 1) for at in range(count)]
    return records, [Origin("s", at, b"x" * 100) for at in range(count)]


def applier(engine: ListEngine, letters: Letters, notes: list[str | None] | None = None, **bounds: Any) -> Applier:
    note = (notes if notes is not None else []).append
    return Applier(engine, letters, threading.Event(), note, StoreConfig(**bounds))


ALL = [f"i{at}" for at in range(10)]


def test_batches_are_cut_by_number_and_by_size() -> None:
    engine = ListEngine()
    applier(engine, Letters(), batch_events=4).apply(*batch(10))
    assert engine.batches == [4, 4, 2]
    engine = ListEngine()
    applier(engine, Letters(), batch_bytes=350).apply(*batch(10))
    assert engine.batches == [3, 3, 3, 1]
    assert engine.values == ALL


def test_a_full_disk_is_waited_out_and_nothing_is_applied_twice() -> None:
    left = [3]

    def full(engine: ListEngine, record: Record) -> None:
        if record.next_offset == 5 and left[0]:
            left[0] -= 1
            raise StoreFullError("the device is full")

    engine = ListEngine(full)
    notes: list[str | None] = []
    applier(engine, Letters(), notes).apply(*batch(10))
    assert engine.values == ALL
    assert engine.reopened == 3
    assert notes == ["the device is full"] * 3 + [None]


@pytest.mark.parametrize("error", [InputError("too many types"), RuntimeError("a bug")])
def test_a_record_that_the_engine_cannot_apply_goes_to_the_dead_letters(error: Exception) -> None:
    def poison(engine: ListEngine, record: Record) -> None:
        if isinstance(record.value, Event) and record.value.item == "i6":
            raise error

    engine, letters = ListEngine(poison), Letters()
    applier(engine, letters).apply(*batch(10))
    assert engine.values == [item for item in ALL if item != "i6"]
    assert engine.stored == {"s": 10}
    assert [position for position, _ in letters.kept] == [6]
    assert str(error) in letters.kept[0][1]
    assert letters.safe == 1


def test_memory_that_runs_out_is_waited_for_and_costs_no_event() -> None:
    left = [5]

    def short(engine: ListEngine, record: Record) -> None:
        if record.next_offset == 5 and left[0]:
            left[0] -= 1
            raise MemoryError

    engine, letters = ListEngine(short), Letters()
    notes: list[str | None] = []
    applier(engine, letters, notes).apply(*batch(10))
    assert engine.values == ALL
    assert letters.kept == []
    assert notes == ["out of memory; the batch is tried again"] * 5 + [None]


def test_a_refused_event_is_told_once_however_often_the_batch_is_tried() -> None:
    left = [2]

    def full(engine: ListEngine, record: Record) -> None:
        if record.next_offset == 4 and left[0]:
            left[0] -= 1
            raise StoreFullError("full")

    engine, letters = ListEngine(full), Letters(failures=0)
    records, origins = batch(4, user="future")
    applier(engine, letters).apply(records, origins)
    assert sorted(letters.kept) == [(at, "in the future") for at in range(4)]
    assert letters.safe == 4


def test_the_offset_does_not_move_while_letters_cannot_be_kept() -> None:
    engine, letters = ListEngine(), Letters(failures=2)
    notes: list[str | None] = []
    work = applier(engine, letters, notes)
    work.refuse(Origin("s", 0, b"bad"), "not JSON")
    work.apply([Record(None, "s", 1)], [Origin("s", 0, b"bad")])
    assert letters.safe == 1
    assert engine.stored == {"s": 1}
    assert notes[0] == "dead letters cannot be kept: no room for letters"


def test_a_refused_event_waits_for_the_letters_too() -> None:
    engine, letters = ListEngine(), Letters(failures=0)
    records, origins = batch(2, user="future")
    work = applier(engine, letters)
    letters._failures = 2
    work.apply(records, origins)
    assert letters.safe == len(letters.kept) >= 2
    assert engine.stored == {"s": 2}


def test_stopping_ends_a_wait_and_drops_the_batch_whole() -> None:
    stop = threading.Event()

    def full(engine: ListEngine, record: Record) -> None:
        stop.set()
        raise StoreFullError("full")

    engine = ListEngine(full)
    with pytest.raises(SourceStoppedError):
        Applier(engine, Letters(), stop, lambda problem: None, StoreConfig()).apply(*batch(2))
    assert engine.stored == {}


def test_a_fenced_store_ends_the_source() -> None:
    def fenced(engine: ListEngine, record: Record) -> None:
        raise StoreFencedError("another owner")

    with pytest.raises(StoreFencedError):
        applier(ListEngine(fenced), Letters()).apply(*batch(2))


def test_reports_are_handed_on() -> None:
    told: list[int] = []
    work = Applier(
        ListEngine(),
        Letters(),
        threading.Event(),
        lambda problem: None,
        StoreConfig(batch_events=4),
        on_report=lambda report: told.append(report.applied),
    )
    work.apply(*batch(10))
    assert told == [4, 4, 2]
