"""The compiled entry points of the fast memory: learn events, recall candidates, score items."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import contexts as ring
from . import neighbours, popularity
from .contexts import Contexts
from .jit import jit
from .neighbours import Neighbours
from .popularity import Popularity

__all__ = ["REACH", "SMOOTHING", "Memory", "Scratch", "learn", "recall", "score"]

Rows = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]

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
    """What events are folded into: item counts, unordered pairs within a user's last events, ordered pairs."""

    popular: Popularity
    together: Neighbours
    after: Neighbours


class Scratch(NamedTuple):
    """Working memory of a query, all zero between queries.

    scores   float32 [items, 4]
    touched  int32 [REACH * neighbours]   items that have scores
    marks    int8 [items]
    """

    scores: Scores
    touched: Rows
    marks: npt.NDArray[np.int8]


@jit
def learn(
    memory: Memory,
    contexts: Contexts,
    slots: Rows,
    items: Rows,
    times: npt.NDArray[np.int64],
    start: int,
    now: int,
) -> int:
    """Learn events from ``start`` on; ``now`` is the number of events learnt before the first of the call.

    Returns the number of events done, which is less than asked when an arena must grow first.
    """
    together, after = memory.together, memory.after
    size = contexts.items.shape[1]
    for k in range(start, items.size):
        if not (neighbours.headroom(together, 2 * size) and neighbours.headroom(after, _DISTANCE)):
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
        popularity.bump(memory.popular, item, clock)
        ring.insert(contexts, slot, at, item, times[k])
    return items.size


@jit
def _excite(
    memory: Memory,
    table: Neighbours,
    decays: npt.NDArray[np.float64],
    recent: Rows,
    now: int,
    scratch: Scratch,
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
            factors /= np.float32(np.sqrt(memory.popular.counts[row] + SMOOTHING))
            count = neighbours.accumulate(table, row, factors, scratch.scores, scratch.touched, count)
    return count


@jit
def _excite_together(memory: Memory, recent: Rows, now: int, scratch: Scratch) -> int:
    found = _excite(memory, memory.together, _TOGETHER_DECAYS, recent, now, scratch)
    for k in range(found):
        item = scratch.touched[k]
        root = np.float32(np.sqrt(memory.popular.counts[item] + SMOOTHING))
        for column in range(3):
            scratch.scores[item, column] /= root
    return found


@jit
def _clear(scratch: Scratch, found: int) -> None:
    for k in range(found):
        scratch.scores[scratch.touched[k]] = 0.0


@jit
def _choose(scratch: Scratch, column: int, found: int, wanted: int, chosen: Rows, count: int) -> int:
    # append the best items that are not excluded; equal scores in the order in which they were touched
    items, values = np.empty(found, np.int32), np.empty(found, np.float32)
    free = 0
    for k in range(found):
        item = scratch.touched[k]
        if scratch.marks[item] != _EXCLUDED and scratch.scores[item, column] > 0.0:
            items[free], values[free] = item, scratch.scores[item, column]
            free += 1
    level, ties = np.float32(0.0), free
    if free > wanted:
        level = np.partition(values[:free], free - wanted)[free - wanted]
        ties = wanted - np.sum(values[:free] > level)
    for k in range(free):
        if values[k] == level:
            ties -= 1
        if values[k] < level or (values[k] == level and ties < 0) or scratch.marks[items[k]] == _CHOSEN:
            continue
        scratch.marks[items[k]] = _CHOSEN
        chosen[count] = items[k]
        count += 1
    return count


@jit
def _choose_leaders(
    popular: Popularity, level: int, wanted: int, marks: npt.NDArray[np.int8], chosen: Rows, count: int
) -> int:
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
def recall(memory: Memory, recent: Rows, excluded: Rows, wanted: int, now: int, scratch: Scratch) -> Rows:
    """Return the items that the memories would put first, ascending; none of them is excluded.

    The union of the first ``wanted`` by the first part of each table of neighbours, a quarter of that by its other
    parts, and ``wanted`` leaders shared out among the half-lives.
    """
    marks = scratch.marks
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = _EXCLUDED
    levels = memory.popular.half_lives.size
    share = (wanted + levels - 1) // levels
    minor = (wanted + _MINOR - 1) // _MINOR
    chosen = np.empty(2 * wanted + (_TOGETHER + _AFTER - 2) * minor + levels * share, np.int32)
    found = _excite_together(memory, recent, now, scratch)
    count = 0
    for column in range(_TOGETHER):
        count = _choose(scratch, column, found, minor if column else wanted, chosen, count)
    _clear(scratch, found)
    found = _excite(memory, memory.after, _AFTER_DECAYS, recent, now, scratch)
    for column in range(_AFTER):
        count = _choose(scratch, column, found, minor if column else wanted, chosen, count)
    _clear(scratch, found)
    for level in range(levels):
        count = _choose_leaders(memory.popular, level, share, marks, chosen, count)
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = 0
    for k in range(count):
        marks[chosen[k]] = 0
    return np.sort(chosen[:count])


@jit
def _gather(scratch: Scratch, rows: Rows, targets: Scores) -> None:
    for k in range(rows.size):
        if 0 <= rows[k] < scratch.scores.shape[0]:
            for column in range(targets.shape[0]):
                if scratch.scores[rows[k], column] > 0.0:
                    targets[column, k] = scratch.scores[rows[k], column]


@jit
def score(memory: Memory, recent: Rows, rows: Rows, now: int, scratch: Scratch) -> npt.NDArray[np.float32]:
    """Return the scores of rows, [half-lives + 7, rows]: popularities, pairs, ordered pairs; nan is not scored."""
    popular = memory.popular
    levels = popular.half_lives.size
    scores = np.full((levels + _TOGETHER + _AFTER, rows.size), np.float32(np.nan))
    for level in range(levels):
        deflation = popularity.deflation(popular, level, now)
        for k in range(rows.size):
            if 0 <= rows[k] < popular.counts.size and popular.counts[rows[k]] > 0.0:
                scores[level, k] = popular.values[level, rows[k]] * deflation
    found = _excite_together(memory, recent, now, scratch)
    _gather(scratch, rows, scores[levels : levels + _TOGETHER])
    _clear(scratch, found)
    found = _excite(memory, memory.after, _AFTER_DECAYS, recent, now, scratch)
    _gather(scratch, rows, scores[levels + _TOGETHER :])
    _clear(scratch, found)
    return scores
