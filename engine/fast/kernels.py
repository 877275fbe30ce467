"""Compiled entry points of the fast memory: learn events, accumulate a context, find candidates and score them."""

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s, Int32s
from ...kernels.jit import jit
from . import attributes, neighbours, popularity, transitions
from . import contexts as ring
from .candidates import AFTER, TOGETHER, candidates
from .contexts import Contexts
from .neighbours import Neighbours
from .sparse import spread
from .tables import Few, Memory, Scratch
from .transitions import Followers

__all__ = [
    "REACH",
    "SMOOTHING",
    "accumulate",
    "assemble",
    "learn",
    "score",
]

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
        if not (neighbours.headroom(direct, 1) and neighbours.headroom(memory.attributes.listed, attributes.MOST)):
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
        attributes.learn(memory.attributes, item, clock)
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
    """Score what the pairs of the last items lead to, and weigh their attributes; replaces the context before.

    Returns what followed the last of them directly.
    """
    for k in range(scratch.counts[0]):
        for column in range(4):
            scratch.together[scratch.touched[0, k], column] = 0.0
    for k in range(scratch.counts[1]):
        for column in range(4):
            scratch.after[scratch.touched[1, k], column] = 0.0
    for k in range(scratch.counts[2]):
        scratch.weights[:, scratch.weighed[k]] = 0.0
    scratch.counts[2] = attributes.profile(memory.attributes, recent[-REACH:], now, scratch.weights, scratch.weighed)
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
def _gather(scores: Float32s, rows: Int32s, targets: Float32s) -> None:
    nan = np.float32(np.nan)
    for k in range(rows.size):
        row = rows[k]
        if 0 <= row < scores.shape[0]:
            for column in range(targets.shape[0]):
                value = scores[row, column]
                targets[column, k] = value if value > 0.0 else nan


@jit
def score(memory: Memory, followers: Followers, rows: Int32s, now: int, scratch: Scratch) -> Float32s:
    """Return the scores of rows for the context that was accumulated last, [parts, rows]; nan is not scored.

    In order: popularities, unordered pairs, ordered pairs, direct successors, attributes.
    """
    popular, described = memory.popular, memory.attributes.carriers.size > 0
    levels, direct = popular.half_lives.size, transitions.scores(followers, rows)
    counted = levels + TOGETHER + AFTER + len(direct)
    scores = np.full((counted + (2 if described else 0), rows.size), np.float32(np.nan))
    scores[levels + TOGETHER + AFTER : counted] = direct
    if described:
        scores[counted:] = attributes.scores(memory.attributes, rows, scratch.weights)
    for level in range(levels):
        deflation = popularity.deflation(popular, level, now)
        for k in range(rows.size):
            if 0 <= rows[k] < popular.counts.size and popular.counts[rows[k]] > 0.0:
                scores[level, k] = popular.values[level, rows[k]] * deflation
    _gather(scratch.together, rows, scores[levels : levels + TOGETHER])
    _gather(scratch.after, rows, scores[levels + TOGETHER : levels + TOGETHER + AFTER])
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
    chosen = candidates(memory, followers[0], followers[1], now, excluded, wanted, scratch)
    rows = _distinct_allowed(np.sort(np.concatenate((found, chosen))), allowed)
    count = int(np.count_nonzero(allowed))
    if rows.size < min(least, count) or count <= 2 * wanted:
        rows = np.flatnonzero(allowed).astype(np.int32)
    counted = score(memory, followers, rows, now, scratch)
    scores = np.full((parts, rows.size), np.float32(np.nan))
    scores[: len(counted)] = counted
    start = 0
    for part in range(few.stops.size):
        stop = few.stops[part]
        scores[few.places[part]] = spread(few.keys[start:stop], few.values[start:stop], rows)
        start = stop
    return rows, scores
