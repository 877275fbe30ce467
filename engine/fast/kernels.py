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

__all__ = ["RECENT", "SMOOTHING", "Memory", "Scratch", "learn", "recall", "score"]

Rows = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]

# events of the user that score an item, and the weight of each next older one
RECENT = 10
_DECAY = 0.8
# added to an item's count below the root: pulls the scores of rare items down
SMOOTHING = 20.0
_EXCLUDED, _CHOSEN = 1, 2


class Memory(NamedTuple):
    """What events are folded into: item counts, unordered pairs within a user's last events, ordered pairs."""

    popular: Popularity
    together: Neighbours
    after: Neighbours


class Scratch(NamedTuple):
    """Working memory of a query, all zero between queries.

    scores   float32 [items]
    touched  int32 [RECENT * neighbours]   items whose score is not zero
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
        if not (neighbours.headroom(together, 2 * size) and neighbours.headroom(after, RECENT)):
            return k
        slot, item, clock = slots[k], items[k], now + k
        neighbours.rescale(together, clock)
        inflation = neighbours.inflation(together, clock)
        for j in range(contexts.lengths[slot]):
            other = contexts.items[slot, j]
            if other != item:
                neighbours.add(together, item, other, inflation)
                neighbours.add(together, other, item, inflation)
        at = ring.place(contexts, slot, times[k])
        neighbours.rescale(after, clock)
        inflation = neighbours.inflation(after, clock)
        for distance in range(1, min(RECENT, at) + 1):
            neighbours.add(after, contexts.items[slot, at - distance], item, inflation / distance)
        popularity.bump(memory.popular, item, clock)
        ring.insert(contexts, slot, at, item, times[k])
    return items.size


@jit
def _excite(table: Neighbours, recent: Rows, now: int, scratch: Scratch) -> int:
    # the rows of the last items, the newest weighing most; returns how many items were touched
    count = 0
    weight = 1.0 / neighbours.inflation(table, now)
    for k in range(min(RECENT, recent.size)):
        row = recent[recent.size - 1 - k]
        if row < table.used.size:
            count = neighbours.accumulate(table, row, weight, scratch.scores, scratch.touched, count)
        weight *= _DECAY
    return count


@jit
def _excite_together(memory: Memory, recent: Rows, now: int, scratch: Scratch) -> int:
    found = _excite(memory.together, recent, now, scratch)
    for k in range(found):
        item = scratch.touched[k]
        scratch.scores[item] /= np.float32(np.sqrt(memory.popular.counts[item] + SMOOTHING))
    return found


@jit
def _clear(scratch: Scratch, found: int) -> None:
    for k in range(found):
        scratch.scores[scratch.touched[k]] = 0.0


@jit
def _choose(scratch: Scratch, found: int, wanted: int, chosen: Rows, count: int) -> int:
    # append the best items that are not excluded; equal scores in the order in which they were touched
    items, values = np.empty(found, np.int32), np.empty(found, np.float32)
    free = 0
    for k in range(found):
        item = scratch.touched[k]
        if scratch.marks[item] != _EXCLUDED and scratch.scores[item] > 0.0:
            items[free], values[free] = item, scratch.scores[item]
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

    The union of the first ``wanted`` of each table of neighbours and of as many leaders, shared by the half-lives.
    """
    marks = scratch.marks
    for k in range(excluded.size):
        if 0 <= excluded[k] < marks.size:
            marks[excluded[k]] = _EXCLUDED
    levels = memory.popular.half_lives.size
    share = (wanted + levels - 1) // levels
    chosen = np.empty(2 * wanted + levels * share, np.int32)
    found = _excite_together(memory, recent, now, scratch)
    count = _choose(scratch, found, wanted, chosen, 0)
    _clear(scratch, found)
    found = _excite(memory.after, recent, now, scratch)
    count = _choose(scratch, found, wanted, chosen, count)
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
def _gather(scratch: Scratch, rows: Rows, target: Scores) -> None:
    for k in range(rows.size):
        if 0 <= rows[k] < scratch.scores.size and scratch.scores[rows[k]] > 0.0:
            target[k] = scratch.scores[rows[k]]


@jit
def score(memory: Memory, recent: Rows, rows: Rows, now: int, scratch: Scratch) -> npt.NDArray[np.float32]:
    """Return the scores of rows, [half-lives + 2, rows]: popularities, pairs, ordered pairs; nan is not scored."""
    popular = memory.popular
    levels = popular.half_lives.size
    scores = np.full((levels + 2, rows.size), np.float32(np.nan))
    for level in range(levels):
        deflation = popularity.deflation(popular, level, now)
        for k in range(rows.size):
            if 0 <= rows[k] < popular.counts.size and popular.counts[rows[k]] > 0.0:
                scores[level, k] = popular.values[level, rows[k]] * deflation
    found = _excite_together(memory, recent, now, scratch)
    _gather(scratch, rows, scores[levels])
    _clear(scratch, found)
    found = _excite(memory.after, recent, now, scratch)
    _gather(scratch, rows, scores[levels + 1])
    _clear(scratch, found)
    return scores
