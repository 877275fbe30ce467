"""Laws of the store against the plain model, over generated streams."""

import itertools
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recurra.engine.config import StoreConfig
from recurra.engine.events import Event
from recurra.engine.store import Batch, Store

NOW_MS = 1_000
TOLERANCE_MS = 50
SMALL: dict[str, Any] = {
    "anchor": 4,
    "tail_events": 2,
    "hot_histories": 4,
    "batch_events": 4,
    "future_tolerance_ms": TOLERANCE_MS,
}

laws = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
Plain = Callable[[int, int], Any]
Entries = Callable[..., list[tuple[str | None, str | None, int]]]
Opener = Callable[..., Store]
Contents = Callable[[Store], dict[str, tuple[Any, ...]]]


@contextmanager
def new_store(**options: Any) -> Iterator[Store]:
    with new_folder() as folder, Store.open(folder / "s", StoreConfig(**SMALL | options)) as store:
        yield store


@contextmanager
def new_folder() -> Iterator[Path]:
    # the laws open hundreds of stores and do not ask about power losses: in memory where the system has a place
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def stream(seed: int, length: int, users: int = 4) -> list[Event]:
    """A hostile little stream: few users and items, ties, late and repeated events, ids now and then."""
    draw = random.Random(seed)
    events: list[Event] = []
    for position in range(length):
        if events and draw.random() < 0.1:
            events.append(draw.choice(events))
            continue
        events.append(
            Event(
                user=f"u{draw.randrange(users)}",
                item=f"i{draw.randrange(12)}",
                time_ms=draw.choice([position, position, position // 3, NOW_MS + TOLERANCE_MS + draw.randrange(2)]),
                type=draw.choice([None, None, "play", "buy"]),
                weight=draw.choice([None, 0.5, -3.0]),
                id=draw.choice([None, f"e{draw.randrange(200)}"]),
            )
        )
    return events


def split(events: list[Event], seed: int, most: int = 4) -> Iterator[list[Event]]:
    draw, rest = random.Random(seed), iter(events)
    while part := list(itertools.islice(rest, draw.randint(1, most))):
        yield part


def feed(store: Store, batches: Iterable[list[Event]]) -> list[int]:
    status: list[int] = []
    for part in batches:
        status += store.apply(Batch.of(part), NOW_MS).status.tolist()
    return status


seeds = st.integers(0, 2**32 - 1)


@laws
@given(seed=seeds, length=st.integers(1, 120), horizon=st.sampled_from([0, 0, 1, 3]), hot=st.sampled_from([1, 2, 4]))
def test_equals_the_plain_model(
    plain: Plain, contents: Contents, log_entries: Entries, seed: int, length: int, horizon: int, hot: int
) -> None:
    events = stream(seed, length)
    model = plain(8, TOLERANCE_MS)
    expected = [model.apply(event, NOW_MS) for event in events]
    with new_store(hot_histories=hot, batch_events=hot, seen_horizon=horizon) as store:
        assert feed(store, split(events, seed, hot)) == expected
        assert contents(store) == model.export(horizon)
        assert log_entries(store) == model.log
        middle = len(model.log) // 2
        assert log_entries(store, middle) == model.log[middle:]
        assert store.next_seq == len(model.log)


@laws
@given(seed=seeds, length=st.integers(1, 120))
def test_batch_split_slab_and_tail_change_nothing(seed: int, length: int) -> None:
    events = stream(seed, length)
    digests = set()
    for most, hot, tail in ((1, 1, 1), (4, 4, 3), (120, 120, 200)):
        with new_store(hot_histories=hot, batch_events=hot, tail_events=tail) as store:
            feed(store, split(events, seed + most, most))
            digests.add(store.digest())
    assert len(digests) == 1


@laws
@given(seed=seeds, length=st.integers(1, 80))
def test_order_of_different_users_changes_nothing(seed: int, length: int) -> None:
    events = stream(seed, length)
    grouped = sorted(events, key=lambda event: event.user)
    with new_store() as one, new_store() as other:
        feed(one, split(events, seed))
        feed(other, split(grouped, seed))
        assert one.digest() == other.digest()


@laws
@given(seed=seeds, length=st.integers(1, 80))
def test_repeating_at_once_changes_nothing(seed: int, length: int) -> None:
    events = stream(seed, length)
    twice = [event for event in events for _ in range(2)]
    with new_store() as one, new_store() as other:
        feed(one, split(events, seed))
        feed(other, split(twice, seed))
        assert one.digest() == other.digest()
        assert one.next_seq == other.next_seq


@laws
@given(times=st.lists(st.integers(0, NOW_MS), unique=True, min_size=1, max_size=24), seed=seeds)
def test_late_equals_on_time(times: list[int], seed: int) -> None:
    # at most one history (8) of events per user, at distinct times
    events = [Event(f"u{position % 3}", f"i{time % 7}", time) for position, time in enumerate(times)]
    shuffled = random.Random(seed).sample(events, len(events))
    with new_store() as one, new_store() as other:
        feed(one, split(sorted(events, key=lambda event: event.time_ms), seed))
        feed(other, split(shuffled, seed))
        assert one.digest() == other.digest()


@laws
@given(seed=seeds, length=st.integers(1, 80))
def test_reopening_changes_nothing(contents: Contents, log_entries: Entries, seed: int, length: int) -> None:
    events = stream(seed, length)
    with new_folder() as folder, new_store() as whole:
        status = []
        for part in split(events, seed, 30):
            with Store.open(folder / "s", StoreConfig(**SMALL)) as store:
                status += feed(store, split(part, seed))
        assert status == feed(whole, split(events, seed))
        with Store.open(folder / "s", StoreConfig(**SMALL)) as store:
            assert contents(store) == contents(whole)
            assert log_entries(store) == log_entries(whole)
            assert dict(store.users.items()) == dict(whole.users.items())
            assert dict(store.items.items()) == dict(whole.items.items())
            np.testing.assert_array_equal(store.items.first_ms, whole.items.first_ms)


@laws
@given(seed=seeds, length=st.integers(1, 80), at=st.floats(0, 1), again=st.booleans())
def test_forgetting(
    plain: Plain, contents: Contents, log_entries: Entries, seed: int, length: int, at: float, again: bool
) -> None:
    events = stream(seed, length)
    cut = int(at * length)
    model = plain(8, TOLERANCE_MS)
    for event in events[:cut]:
        model.apply(event, NOW_MS)
    with new_store() as store:
        feed(store, split(events[:cut], seed))
        old_row = store.users.row("u1")
        assert store.forget("u1") == ("u1" in model.users)
        model.forget("u1")
        assert contents(store) == model.export()
        assert log_entries(store) == model.log
        later = [event for event in events[cut:] if again or event.user != "u1"]
        for event in later:
            model.apply(event, NOW_MS)
        feed(store, split(later, seed))
        assert contents(store) == model.export()
        if old_row is not None:
            assert store.users.row("u1") != old_row
            assert store.users.id(old_row) is None
            assert store.history(old_row).n == 0
            assert store.seen(old_row).size == 0


@laws
@given(seed=seeds, length=st.integers(1, 120), limit=st.integers(1, 40), most=st.sampled_from([1, 4]))
def test_the_log_keeps_at_least_the_newest(
    plain: Plain, log_entries: Entries, seed: int, length: int, limit: int, most: int
) -> None:
    events = stream(seed, length)
    model = plain(8, TOLERANCE_MS)
    for event in events:
        model.apply(event, NOW_MS)
    with new_store(log_events=limit) as store:
        feed(store, split(events, seed, most))
        entries = log_entries(store)
        assert entries == model.log[len(model.log) - len(entries) :]
        assert len(entries) >= min(limit, len(model.log))


def test_a_long_log_is_trimmed_and_its_small_chunks_are_merged(open_store: Opener, log_entries: Entries) -> None:
    store = open_store(log_events=300, anchor=4)
    for time in range(1_000):
        store.apply(Batch.of([Event(f"u{time % 5}", f"i{time % 7}", time)]), NOW_MS)
    entries = log_entries(store)
    assert [time for _, _, time in entries] == list(range(1_000 - len(entries), 1_000))
    assert 300 <= len(entries) < 300 + 64
    assert len(list(store.log())) < 64 + 10


@pytest.mark.parametrize("horizon", [0, 1, 2, 5])
def test_the_horizon_counts_items_beyond_the_history(
    open_store: Opener, plain: Plain, contents: Contents, horizon: int
) -> None:
    store = open_store(f"s{horizon}", **SMALL | {"seen_horizon": horizon})
    model = plain(8, TOLERANCE_MS)
    for time in range(40):
        event = Event("u", f"i{(time * time) % 23}", time)
        model.apply(event, NOW_MS)
        store.apply(Batch.of([event]), NOW_MS)
        assert contents(store) == model.export(horizon)


def test_merging_never_brings_back_a_forgotten_user(open_store: Opener, log_entries: Entries) -> None:
    store = open_store()
    for time in range(40):
        store.apply(Batch.of([Event(f"u{time % 2}", f"i{time}", time)]), NOW_MS)
    store.forget("u1")
    for time in range(40, 140):
        store.apply(Batch.of([Event("u0", f"i{time}", time)]), NOW_MS)
    assert [time for _, _, time in log_entries(store)] == [*range(0, 40, 2), *range(40, 140)]


def test_middling_chunks_are_merged_within_the_limit(open_store: Opener, log_entries: Entries) -> None:
    store = open_store(log_events=400)
    for first in range(0, 2_000, 200):
        store.apply(Batch.of([Event(f"u{k}", "i", k) for k in range(first, first + 200)]), 10_000)
        times = [time for _, _, time in log_entries(store)]
        assert times == list(range(first + 200 - len(times), first + 200))
        assert min(400, first + 200) <= len(times) <= 1_000


def test_real_events(shared_data: Callable[[str], Path], open_store: Opener, plain: Plain, contents: Contents) -> None:
    lines = shared_data("ml-100k/ml-100k.inter").read_text().splitlines()[1:20_001]
    rows = [line.split("\t") for line in lines]
    events = [Event(user, item, int(float(time) * 1000), None, float(rating)) for user, item, rating, time in rows]
    store = open_store(anchor=16, hot_histories=512)
    model = plain(32, 0)
    now_ms = max(event.time_ms for event in events)
    for first in range(0, len(events), 512):
        part = events[first : first + 512]
        applied = store.apply(Batch.of(part), now_ms)
        assert applied.status.tolist() == [model.apply(event, now_ms) for event in part]
    assert contents(store) == model.export()


@pytest.mark.parametrize("seed", range(5))
def test_applied_tells_what_the_caller_needs(plain: Plain, seed: int, open_store: Opener) -> None:
    store = open_store(f"s{seed}", **SMALL | {"hot_histories": 16})
    model = plain(8, TOLERANCE_MS)
    for part in split(stream(seed, 200), seed, 16):
        before = {name: user.n for name, user in model.users.items()}
        status, counters = [], []
        for event in part:
            status.append(model.apply(event, NOW_MS))
            counters.append(model.users[event.user].n if event.user in model.users else 0)
        applied = store.apply(Batch.of(part), NOW_MS)
        assert applied.status.tolist() == status
        known = applied.user_rows >= 0
        assert store.users.ids(applied.user_rows[known].tolist()) == [
            event.user for event, one in zip(part, status, strict=True) if one != 4
        ]
        assert applied.n[known].tolist() == [n for n, one in zip(counters, status, strict=True) if one != 4]
        assert (applied.touched[applied.touch[known]] == applied.user_rows[known]).all()
        for row, n_before, n_after, late in zip(
            applied.touched.tolist(), applied.n_before, applied.n_after, applied.late, strict=True
        ):
            name = str(store.users.id(row))
            assert n_before == before.get(name, 0)
            assert n_after == model.users[name].n
            own = [one for event, one in zip(part, status, strict=True) if event.user == name]
            assert late == (1 in own)
        done = [one <= 1 for one in status]
        assert applied.seq[done].tolist() == list(range(applied.next_seq - sum(done), applied.next_seq))
        assert (applied.seq[[not one for one in done]] == -1).all()
