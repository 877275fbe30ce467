"""Bytes of histories, seen records, log chunks and item records: round trips and malformed input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recurra.engine.events import MAX_TIME_MS, Item
from recurra.engine.store.codec import varints, zigzags
from recurra.engine.store.history_slab import HistorySlab
from recurra.engine.store.log import LogChunk, decode_chunk, encode_chunk, erase
from recurra.engine.store.records import StoredItem, decode_item, encode_item

KEEP, TAIL = 12, 4
rows = st.integers(0, 2**31 - 1)
times = st.integers(0, MAX_TIME_MS)
weights = st.one_of(st.just(float("nan")), st.floats(-(2.0**100), 2.0**100, width=32))
hashes = st.one_of(st.just(0), st.integers(0, 2**64 - 1))
event = st.tuples(rows, times, st.one_of(st.just(0), st.integers(0, 65_535)), weights, hashes)
codec = settings(max_examples=60, deadline=None)


def filled(users: list[list[tuple[int, int, int, float, int]]], tails: list[int]) -> HistorySlab:
    slab = HistorySlab(8, KEEP, TAIL)
    for slot, events in enumerate(users):
        events = sorted(events, key=lambda one: one[1])
        for place, (item, time, kind, weight, digest) in enumerate(events):
            slab.items[slot, place] = item
            slab.times[slot, place] = time
            slab.types[slot, place] = kind
            slab.weights[slot, place] = weight
            slab.hashes[slot, place] = digest
        slab.lengths[slot] = len(events)
        slab.tails[slot] = min(tails[slot], len(events))
        slab.n[slot] = 2**47 - slot
        slab.partitions[slot] = slot * 1_000_000
        slab.flags[slot] = slot & 1
    return slab


@codec
@given(
    users=st.lists(st.lists(event, max_size=KEEP + TAIL), min_size=1, max_size=5),
    tails=st.lists(st.integers(0, TAIL), min_size=5, max_size=5),
)
def test_histories_round_trip(users: list[list[tuple[int, int, int, float, int]]], tails: list[int]) -> None:
    slab = filled(users, tails)
    slots = np.arange(len(users), dtype=np.int32)
    based = slab.lengths[slots] > slab.tails[slots]
    data, ends = slab.encoded(slots, based)
    values = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    other = HistorySlab(8, KEEP, TAIL)
    other.hashes[:] = 77
    target = slots[::-1].copy()
    assert other.load(target, values) == -1
    for name in ("lengths", "tails", "n", "partitions", "flags"):
        np.testing.assert_array_equal(getattr(other, name)[target], getattr(slab, name)[slots])
    for slot, place in zip(slots, target, strict=True):
        length = slab.lengths[slot]
        for name in ("items", "times", "types", "weights", "hashes"):
            np.testing.assert_array_equal(getattr(other, name)[place, :length], getattr(slab, name)[slot, :length])


@codec
@given(
    events=st.lists(event, min_size=1, max_size=KEEP + TAIL),
    tail=st.integers(0, TAIL),
    cut=st.integers(0, 500),
    flips=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 255)), max_size=3),
)
def test_damaged_histories_are_refused_or_read_within_bounds(
    events: list[tuple[int, int, int, float, int]], tail: int, cut: int, flips: list[tuple[int, int]]
) -> None:
    slab = filled([events], [tail])
    data, ends = slab.encoded(np.zeros(1, np.int32), np.ones(1, np.bool_))
    values = [bytearray(data[: ends[0]]), bytearray(data[ends[0] :])]
    for value in values:
        for at, mask in flips:
            if at < len(value):
                value[at] ^= mask
    values[1] = values[1][: max(0, len(values[1]) - cut)]
    other = HistorySlab(3, KEEP, TAIL)
    other.load(np.ones(1, np.int32), [bytes(value) for value in values])
    assert 0 <= other.lengths[1] <= other.width
    # the neighbours are untouched
    for column in (other.items, other.times, other.types, other.hashes):
        assert not column[[0, 2]].any()


@pytest.mark.parametrize(("which", "change"), [(0, b"\x02"), (1, b"\x02"), (0, b""), (1, b"")])
def test_other_versions_and_missing_records_are_refused(which: int, change: bytes) -> None:
    slab = filled([[(1, 5, 0, 1.0, 0)], [(2, 5, 0, 1.0, 9), (3, 6, 0, 1.0, 0)]], [0, 1])
    data, ends = slab.encoded(np.array([0, 1], np.int32), np.ones(2, np.bool_))
    values = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    values[2 + which] = change + values[2 + which][1:] if change else b""
    assert HistorySlab(2, KEEP, TAIL).load(np.array([0, 1], np.int32), values) == 1


@codec
@given(arrays.arrays(np.int32, st.integers(0, 50), elements=rows))
def test_seen_items_round_trip(items: np.ndarray) -> None:
    np.testing.assert_array_equal(varints(zigzags(items)), items)


def test_a_dense_seen_record_takes_a_byte_per_item() -> None:
    assert len(zigzags(np.arange(5_000, 6_000, 7, dtype=np.int32))) <= 1000 // 7 + 3


@codec
@given(st.lists(event, min_size=1, max_size=40), st.integers(0, 2**40))
def test_log_chunks_round_trip(events: list[tuple[int, int, int, float, int]], first: int) -> None:
    item, time, kind, weight, digest = map(list, zip(*events, strict=True))
    chunk = LogChunk(
        np.arange(first, first + len(events)),
        np.array(item[::-1], np.int32),
        np.array(item, np.int32),
        np.array(time, np.int64),
        np.array(kind, np.uint16),
        np.array(weight, np.float32),
        np.array(digest, np.uint64),
    )
    value = encode_chunk(chunk)
    back = decode_chunk(first, value)
    for name in LogChunk._fields:
        assert getattr(back, name).dtype == getattr(chunk, name).dtype
        np.testing.assert_array_equal(getattr(back, name), getattr(chunk, name))
    with pytest.raises(ValueError, match="chunk"):
        decode_chunk(first, value[:-1])
    with pytest.raises(ValueError, match="version"):
        decode_chunk(first, b"\x07" + value[1:])


def test_erasing_a_user_from_a_chunk_leaves_nothing_of_it() -> None:
    users = np.array([3, 5, 3, 7], np.int32)
    marks = np.array([111_111, 2, 111_111, 4])
    chunk = LogChunk(
        np.arange(4),
        users,
        marks.astype(np.int32),
        marks.astype(np.int64),
        marks.astype(np.uint16),
        marks.astype(np.float32),
        marks.astype(np.uint64),
    )
    erased = erase(chunk, [3])
    assert erased is not None
    back = decode_chunk(0, encode_chunk(erased))
    assert back.user_rows.tolist() == [-1, 5, -1, 7]
    for column in back[2:]:
        assert 111_111 not in column.tolist()
        assert column[1] == 2
    assert erase(chunk, [4]) is None


@pytest.mark.parametrize(
    "item",
    [
        StoredItem("a"),
        StoredItem("ü" * 100, 5, Item("x", "T", ("c", "d"), False, {"year": 1999, "deep": [1.5, {"k": None}]}), None),
        StoredItem("b", 7, Item("b"), Item("b", "old")),
    ],
)
def test_item_records_round_trip(item: StoredItem) -> None:
    assert decode_item(encode_item(item)) == item
    with pytest.raises(ValueError, match="version"):
        decode_item(b"\x09" + encode_item(item)[1:])
