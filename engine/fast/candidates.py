"""Candidates: which items the memories put first for a user, found without a look at the whole catalogue."""

import numpy as np

from ...kernels.arrays import Float32s, Int32s
from ...kernels.jit import jit
from . import attributes
from .popularity import Popularity
from .tables import Marks, Memory, Scratch

__all__ = ["AFTER", "TOGETHER", "candidates"]

# the parts that tables give: columns of the unordered pairs, then of the ordered ones
TOGETHER, AFTER = 4, 3
# share of the candidates that a part other than the first of its table brings
_MINOR = 4
_EXCLUDED, _CHOSEN = 1, 2


@jit
def _allowed(scores: Float32s, touched: Int32s, marks: Marks, columns: int) -> tuple[Int32s, Float32s]:
    # the touched items that are not excluded, and in the first places of each column [columns, touched] their scores
    items, values = np.empty(touched.size, np.int32), np.empty((columns, touched.size), np.float32)
    count = 0
    for k in range(touched.size):
        item = np.uint32(touched[k])
        items[count] = item
        for column in range(columns):
            values[column, count] = scores[item, column]
        count += int(marks[item] != _EXCLUDED)
    return items[:count], values


@jit
def _at_least(bits: Int32s, level: np.int32) -> int:
    # in 32 bits, so that it becomes one vector instruction for many values
    count = np.int32(0)
    for k in range(bits.size):
        count = np.int32(count + np.int32(bits[k] >= level))
    return int(count)


@jit
def _threshold(bits: Int32s, wanted: int) -> np.int32:
    # what the wanted largest values reach and no others do, else the wanted-th largest; 0 if fewer are positive. The
    # bits of floats that are not negative order as they do
    level = np.int32(0)
    for bit in range(30, -1, -1):
        higher = np.int32(level | (1 << bit))
        count = _at_least(bits, higher)
        if count >= wanted:
            level = higher
        if count == wanted:
            break
    return level


@jit
def _choose(items: Int32s, values: Float32s, wanted: int, marks: Marks, chosen: Int32s, count: int) -> int:
    # append the best items that were not chosen before; equal scores in the order in which they were touched
    bits = values.view(np.int32)
    level = _threshold(bits, wanted)
    ties = wanted - _at_least(bits, np.int32(level + 1))
    for k in range(items.size):
        if bits[k] < level or bits[k] == 0:
            continue
        if bits[k] == level:
            ties -= 1
            if ties < 0:
                continue
        if marks[items[k]] != _CHOSEN:
            marks[items[k]] = _CHOSEN
            chosen[count] = items[k]
            count += 1
    return count


@jit
def _choose_leaders(popular: Popularity, level: int, wanted: int, marks: Marks, chosen: Int32s, count: int) -> int:
    taken = 0
    for k in range(popular.lengths[level]):
        item = popular.leaders[level, k]
        if marks[item] == _EXCLUDED:
            continue
        if marks[item] != _CHOSEN:
            marks[item] = _CHOSEN
            chosen[count] = item
            count += 1
        taken += 1
        if taken == wanted:
            break
    return count


@jit
def _kept(items: Int32s, values: Float32s, marks: Marks) -> tuple[Int32s, Float32s]:
    kept, kept_values = np.empty_like(items), np.empty_like(values)
    count = 0
    for k in range(items.size):
        kept[count], kept_values[count] = items[k], values[k]
        count += int(marks[items[k]] != _EXCLUDED)
    return kept[:count], kept_values[:count]


@jit
def candidates(
    memory: Memory, followers: Int32s, counts: Float32s, now: int, excluded: Int32s, wanted: int, scratch: Scratch
) -> Int32s:
    """Return the items that the memories put first for the context that was accumulated last; none is excluded.

    The union of the first ``wanted`` by the first part of each table of neighbours, a quarter of that by its other
    parts and by ``counts`` of ``followers``, half of it by attributes, and ``wanted`` leaders shared out among the
    half-lives.
    """
    popular, marks = memory.popular, scratch.marks
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = _EXCLUDED
    wanted = max(1, min(wanted, marks.size))
    levels = popular.half_lives.size
    share = (wanted + levels - 1) // levels
    minor = (wanted + _MINOR - 1) // _MINOR
    chosen = np.empty(2 * wanted + (TOGETHER + AFTER + counts.shape[0]) * minor + levels * share, np.int32)
    alike, likeness = attributes.candidates(
        memory.attributes, now, scratch.weights, scratch.weighed[: scratch.counts[2]], marks
    )
    items, values = _allowed(scratch.together, scratch.touched[0, : scratch.counts[0]], marks, TOGETHER)
    count = 0
    for column in range(TOGETHER):
        count = _choose(items, values[column, : items.size], minor if column else wanted, marks, chosen, count)
    items, values = _allowed(scratch.after, scratch.touched[1, : scratch.counts[1]], marks, AFTER)
    for column in range(AFTER):
        count = _choose(items, values[column, : items.size], minor if column else wanted, marks, chosen, count)
    for column in range(counts.shape[0]):
        items, direct = _kept(followers, counts[column], marks)
        count = _choose(items, direct, minor, marks, chosen, count)
    count = _choose(alike, likeness, 2 * minor, marks, chosen, count)
    for level in range(levels):
        count = _choose_leaders(popular, level, share, marks, chosen, count)
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = 0
    for k in range(count):
        marks[chosen[k]] = 0
    return chosen[:count]
