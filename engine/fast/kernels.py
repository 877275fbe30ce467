"""Compiled entry points of the fast memory: learn events, accumulate a context, find candidates and score them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s, Int32s
from ...kernels.jit import jit
from . import contexts as ring
from . import neighbours, popularity, transitions
from .contexts import Contexts
from .neighbours import Neighbours
from .popularity import Popularity
from .sparse import spread
from .transitions import Followers

__all__ = [
    "REACH",
    "SMOOTHING",
    "Few",
    "Memory",
    "Scratch",
    "accumulate",
    "assemble",
    "candidates",
    "learn",
    "score",
]

Marks = npt.NDArray[np.int8]

# events of the user whose rows score an item, and how many of them the narrower parts look at
REACH = 20
_RECENT = 10
# weight of each next older event in the three weighted columns of a table: slow, fast, and the third way to look back
_TOGETHER_DECAYS = np.array([0.8, 0.8, 0.97])
_AFTER_DECAYS = np.array([0.8, 0.8, 0.4])
# an ordered pair is learnt from events up to this distance
_DISTANCE = 10
# added to an item's count below a root: pulls the scores of rare items down, and the say of rare items in the context
SMOOTHING = 20.0
# the parts that tables give: columns of the unordered pairs, then of the ordered ones
_TOGETHER, _AFTER = 4, 3
# share of the candidates that a part other than the first of its table brings
_MINOR = 4
_EXCLUDED, _CHOSEN = 1, 2


class Memory(NamedTuple):
    """What events are folded into: item counts, and pairs of items: unordered, ordered, direct successors."""

    popular: Popularity
    together: Neighbours
    after: Neighbours
    direct: Neighbours


class Few(NamedTuple):
    """Parts that know a few items only: what their keys add to the scores of items, and the place of each part.

    keys    int32 [keys]    item rows, some of them several times
    values  float32 [keys]  what each adds to its item's score
    stops   int64 [parts]   end of each part's keys
    places  int64 [parts]   row of each part among all parts
    """

    keys: Int32s
    values: Float32s
    stops: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


class Scratch(NamedTuple):
    """Working memory of queries.

    together  float32 [items, 4]                 scores by unordered pairs, of the context that was accumulated last
    after     float32 [items, 4]                 scores by ordered pairs
    touched   int32 [2, REACH * neighbours]      items that have scores
    counts    int64 [2]                          how many
    marks     int8 [items]                       zero between calls
    """

    together: Float32s
    after: Float32s
    touched: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    marks: Marks


@jit
def learn(
    memory: Memory,
    contexts: Contexts,
    slots: Int32s,
    items: Int32s,
    times: npt.NDArray[np.int64],
    start: int,
    stop: int,
    now: int,
) -> int:
    """Learn the events from ``start`` to ``stop``; ``now`` is the number of events learnt before those of the arrays.

    Returns the number of events done, which is less than ``stop`` when an arena must grow first.
    """
    together, after, direct = memory.together, memory.after, memory.direct
    size = contexts.items.shape[1]
    for k in range(start, stop):
        if not (neighbours.headroom(together, 2 * size) and neighbours.headroom(after, _DISTANCE)):
            return k
        if not neighbours.headroom(direct, 1):
            return k
        slot, item, clock = slots[k], items[k], now + k
        neighbours.rescale(together, clock)
        slow, fast = neighbours.inflation(together, 0, clock), neighbours.inflation(together, 1, clock)
        for j in range(contexts.lengths[slot]):
            other = contexts.items[slot, j]
            if other != item:
                neighbours.add(together, item, other, slow, fast)
                neighbours.add(together, other, item, slow, fast)
        neighbours.rescale(after, clock)
        slow, fast = neighbours.inflation(after, 0, clock), neighbours.inflation(after, 1, clock)
        at = ring.place(contexts, slot, times[k])
        for distance in range(1, min(_DISTANCE, at) + 1):
            neighbours.add(after, contexts.items[slot, at - distance], item, slow / distance, fast / distance)
        if at > 0:
            transitions.add(direct, contexts.items[slot, at - 1], item)
        popularity.bump(memory.popular, item, clock)
        ring.insert(contexts, slot, at, item, times[k])
    return stop


@jit
def _spread(
    memory: Memory,
    table: Neighbours,
    decays: npt.NDArray[np.float64],
    recent: Int32s,
    now: int,
    scores: Float32s,
    touched: Int32s,
) -> int:
    # the rows of the last items, the newest weighing most; returns how many items were touched
    slow, fast = 1.0 / neighbours.inflation(table, 0, now), 1.0 / neighbours.inflation(table, 1, now)
    factors = np.empty(3, np.float32)
    count = 0
    for k in range(min(REACH, recent.size)):
        near = 1.0 if k < _RECENT else 0.0
        factors[0] = near * slow * decays[0] ** k
        factors[1] = near * fast * decays[1] ** k
        factors[2] = slow * decays[2] ** k
        row = recent[recent.size - 1 - k]
        if row < table.used.size:
            # else the long rows of popular items drown the others
            root = np.float32(np.sqrt(memory.popular.counts[row] + SMOOTHING))
            for column in range(3):
                factors[column] /= root
            count = neighbours.accumulate(table, row, factors, scores, touched, count)
    return count


@jit
def accumulate(memory: Memory, recent: Int32s, now: int, scratch: Scratch) -> Followers:
    """Score what the pairs of the last items lead to; replaces the scores of the context before.

    Returns what followed the last of them directly.
    """
    for k in range(scratch.counts[0]):
        for column in range(4):
            scratch.together[scratch.touched[0, k], column] = 0.0
    for k in range(scratch.counts[1]):
        for column in range(4):
            scratch.after[scratch.touched[1, k], column] = 0.0
    scratch.counts[0] = _spread(
        memory, memory.together, _TOGETHER_DECAYS, recent, now, scratch.together, scratch.touched[0]
    )
    scratch.counts[1] = _spread(memory, memory.after, _AFTER_DECAYS, recent, now, scratch.after, scratch.touched[1])
    for k in range(scratch.counts[0]):
        item = scratch.touched[0, k]
        root = np.float32(np.sqrt(memory.popular.counts[item] + SMOOTHING))
        for column in range(3):
            scratch.together[item, column] /= root
    return transitions.followers(memory.direct, memory.popular, recent[-1] if recent.size else -1, now)


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
    popular: Popularity, followers: Int32s, counts: Float32s, excluded: Int32s, wanted: int, scratch: Scratch
) -> Int32s:
    """Return the items that the memories put first for the context that was accumulated last; none is excluded.

    The union of the first ``wanted`` by the first part of each table of neighbours, a quarter of that by its other
    parts and by ``counts`` of ``followers``, and ``wanted`` leaders shared out among the half-lives.
    """
    marks = scratch.marks
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = _EXCLUDED
    wanted = max(1, min(wanted, marks.size))
    levels = popular.half_lives.size
    share = (wanted + levels - 1) // levels
    minor = (wanted + _MINOR - 1) // _MINOR
    chosen = np.empty(2 * wanted + (_TOGETHER + _AFTER - 2 + counts.shape[0]) * minor + levels * share, np.int32)
    items, values = _allowed(scratch.together, scratch.touched[0, : scratch.counts[0]], marks, _TOGETHER)
    count = 0
    for column in range(_TOGETHER):
        count = _choose(items, values[column, : items.size], minor if column else wanted, marks, chosen, count)
    items, values = _allowed(scratch.after, scratch.touched[1, : scratch.counts[1]], marks, _AFTER)
    for column in range(_AFTER):
        count = _choose(items, values[column, : items.size], minor if column else wanted, marks, chosen, count)
    for column in range(counts.shape[0]):
        items, direct = _kept(followers, counts[column], marks)
        count = _choose(items, direct, minor, marks, chosen, count)
    for level in range(levels):
        count = _choose_leaders(popular, level, share, marks, chosen, count)
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = 0
    for k in range(count):
        marks[chosen[k]] = 0
    return chosen[:count]


@jit
def _gather(scores: Float32s, rows: Int32s, targets: Float32s) -> None:
    nan = np.float32(np.nan)
    for k in range(rows.size):
        row = rows[k]
        if 0 <= row < scores.shape[0]:
            for column in range(targets.shape[0]):
                value = scores[row, column]
                targets[column, k] = value if value > 0.0 else nan


@jit
def score(popular: Popularity, followers: Followers, rows: Int32s, now: int, scratch: Scratch) -> Float32s:
    """Return the scores of rows for the context that was accumulated last, [half-lives + 9, rows]; nan is not scored.

    In order: popularities, unordered pairs, ordered pairs, direct successors.
    """
    levels, direct = popular.half_lives.size, transitions.scores(followers, rows)
    scores = np.full((levels + _TOGETHER + _AFTER + len(direct), rows.size), np.float32(np.nan))
    scores[levels + _TOGETHER + _AFTER :] = direct
    for level in range(levels):
        deflation = popularity.deflation(popular, level, now)
        for k in range(rows.size):
            if 0 <= rows[k] < popular.counts.size and popular.counts[rows[k]] > 0.0:
                scores[level, k] = popular.values[level, rows[k]] * deflation
    _gather(scratch.together, rows, scores[levels : levels + _TOGETHER])
    _gather(scratch.after, rows, scores[levels + _TOGETHER : levels + _TOGETHER + _AFTER])
    return scores


@jit
def _distinct_allowed(rows: Int32s, allowed: npt.NDArray[np.bool_]) -> Int32s:
    kept = np.empty_like(rows)
    count, last = 0, -1
    for row in rows:
        # an item that came in since the mask was made is not allowed by it
        if row != last and row < allowed.size and allowed[row]:
            kept[count] = row
            count += 1
        last = row
    return kept[:count]


@jit
def assemble(
    memory: Memory,
    scratch: Scratch,
    recent: Int32s,
    now: int,
    excluded: Int32s,
    allowed: npt.NDArray[np.bool_],
    found: Int32s,
    few: Few,
    wanted: int,
    least: int,
    parts: int,
) -> tuple[Int32s, Float32s]:
    """Return the allowed candidates of all sources, ascending, and their scores [parts, rows]; nan is not scored.

    The sources are the memories, for a context of the items ``recent``, and the rows ``found`` elsewhere. All allowed
    rows are taken where they are few, or where the sources have fewer than ``least``. The first rows of the scores are
    those of `score`, the others of ``few`` and of nobody.
    """
    followers = accumulate(memory, recent, now, scratch)
    chosen = candidates(memory.popular, followers[0], followers[1], excluded, wanted, scratch)
    rows = _distinct_allowed(np.sort(np.concatenate((found, chosen))), allowed)
    count = int(np.count_nonzero(allowed))
    if rows.size < min(least, count) or count <= 2 * wanted:
        rows = np.flatnonzero(allowed).astype(np.int32)
    counted = score(memory.popular, followers, rows, now, scratch)
    scores = np.full((parts, rows.size), np.float32(np.nan))
    scores[: len(counted)] = counted
    start = 0
    for part in range(few.stops.size):
        stop = few.stops[part]
        scores[few.places[part]] = spread(few.keys[start:stop], few.values[start:stop], rows)
        start = stop
    return rows, scores
