"""Top-M weighted neighbours per item in one arena whose rows grow by doubling, so that rare items cost little.

Every neighbour has two weights that decay exponentially with the number of learnt events, one slowly and one fast.
They are kept inflated: an event at time t adds weight * 2 ** ((t - base) / half_life), so nothing else has to be
touched; the weights are scaled down and ``base`` advances when the exponent has grown by 32.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.jit import jit

__all__ = [
    "Neighbours",
    "accumulate",
    "add",
    "enlarged",
    "grown",
    "headroom",
    "inflation",
    "rescale",
    "reserve",
    "restored",
    "saved",
]

# entries of the smallest row
_SMALLEST = 4
# exponent at which a table is scaled down: weights stay far from the limits of float32
_EXPONENT = 32
_CLASSES = 24
_CURSOR, _BASE, _FREE = 0, 1, 3
_PER_ENTRY = ("keys", "weights")
_PER_ITEM = ("starts", "used", "classes")


class Neighbours(NamedTuple):
    """One table; ``items`` is the capacity of the per-item arrays, ``entries`` that of the arena.

    keys     int32 [entries]      item row of a neighbour; in a free row the first key links to the next free row
    weights  float32 [entries, 2] inflated weights of a neighbour, slow and fast
    starts   int64 [items]        first entry of an item's row
    used     int32 [items]        neighbours in the row
    classes  int8 [items]         the row has 4 * 2 ** (class - 1) entries; class 0 has none
    limits   int64 [4]            (entries of the largest row, slow and fast half-life in events, entries in all)
    marks    int64 [3 + classes]  (first entry never used, the events at which weights are not inflated, free rows)
    """

    keys: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    used: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int8]
    limits: npt.NDArray[np.int64]
    marks: npt.NDArray[np.int64]


def reserve(items: int, entries: int, width: int, most: int, half_lives: tuple[float, float]) -> Neighbours:
    """Return an empty table; ``width`` neighbours per item, rounded up to 4 times a power of two, ``most`` in all."""
    rounded = max(_SMALLEST, 1 << (width - 1).bit_length())
    marks = np.full(_FREE + _CLASSES, -1, np.int64)
    marks[:_FREE] = 0
    return Neighbours(
        keys=np.zeros(entries, np.int32),
        weights=np.zeros((entries, 2), np.float32),
        starts=np.zeros(items, np.int64),
        used=np.zeros(items, np.int32),
        classes=np.zeros(items, np.int8),
        limits=np.array([rounded, *(max(1, round(value)) for value in half_lives), most], np.int64),
        marks=marks,
    )


def grown(table: Neighbours, *, items: int = 0, entries: int = 0) -> Neighbours:
    """Return the same table with at least this capacity."""
    arrays = table._asdict()
    for names, size in ((_PER_ENTRY, entries), (_PER_ITEM, items)):
        for name in names:
            arrays[name] = enlarged(arrays[name], size)
    return Neighbours(**arrays)


def enlarged(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Return an array with at least ``size`` rows, new ones zero; their memory is touched when it is used."""
    if size <= len(array):
        return array
    larger = np.zeros((size, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def saved(table: Neighbours, items: int) -> dict[str, npt.NDArray[Any]]:
    """Return what has to be kept of a table that knows ``items`` items."""
    entries = int(table.marks[_CURSOR])
    arrays = {name: getattr(table, name)[:entries] for name in _PER_ENTRY}
    return arrays | {name: getattr(table, name)[:items] for name in _PER_ITEM} | {"marks": table.marks}


def restored(table: Neighbours, arrays: Mapping[str, npt.NDArray[Any]]) -> Neighbours:
    """Return an empty table filled with what was saved; it has room for the items already."""
    full = grown(table, entries=arrays["keys"].size)
    for name, array in arrays.items():
        getattr(full, name)[: len(array)] = array
    return full


@jit
def headroom(table: Neighbours, additions: int) -> bool:
    """Whether the arena need not grow for so many additions, whatever they are."""
    size = table.keys.size
    return bool(size >= table.limits[3] or table.marks[_CURSOR] + additions * table.limits[0] <= size)


@jit
def inflation(table: Neighbours, speed: int, now: int) -> float:
    """Return what a weight of event ``now`` is multiplied with; speed 0 is the slow decay, 1 the fast one."""
    return float(2.0 ** ((now - table.marks[_BASE + speed]) / table.limits[1 + speed]))


@jit
def rescale(table: Neighbours, now: int) -> None:
    """Scale weights down whose inflation has grown too large; to be called before weights are added."""
    for speed in range(2):
        period = _EXPONENT * table.limits[1 + speed]
        while now - table.marks[_BASE + speed] >= period:
            table.marks[_BASE + speed] += period
            for k in range(table.marks[_CURSOR]):
                table.weights[k, speed] *= np.float32(2.0**-_EXPONENT)


@jit
def _enlarge(table: Neighbours, row: int) -> bool:
    # move a row to one of twice the size; False if the arena may not grow: its last eighth is for items without a row
    level = table.classes[row]
    size = _SMALLEST << level
    start = table.marks[_FREE + level + 1]
    if start >= 0:
        table.marks[_FREE + level + 1] = table.keys[start]
    else:
        start = table.marks[_CURSOR]
        most = table.limits[3]
        if start + size > (most - most // 8 if level > 0 else most):
            return False
        table.marks[_CURSOR] = start + size
    if level > 0:
        old = table.starts[row]
        for k in range(table.used[row]):
            table.keys[start + k] = table.keys[old + k]
            table.weights[start + k, 0] = table.weights[old + k, 0]
            table.weights[start + k, 1] = table.weights[old + k, 1]
        table.keys[old] = table.marks[_FREE + level]
        table.marks[_FREE + level] = old
    table.starts[row] = start
    table.classes[row] = level + 1
    return True


@jit
def add(table: Neighbours, row: int, key: int, slow: float, fast: float) -> None:
    """Add to the weights of a neighbour; a new one takes the place of the weakest in a row that may not grow.

    The newcomer starts with its own weight: with the weight that it replaces (the space-saving counter) chance
    neighbours of rare items would top the ranking.
    """
    start, used = table.starts[row], table.used[row]
    for k in range(start, start + used):
        if table.keys[k] == key:
            table.weights[k, 0] += np.float32(slow)
            table.weights[k, 1] += np.float32(fast)
            return
    level = table.classes[row]
    full = level == 0 or used == _SMALLEST << (level - 1)
    if full and used < table.limits[0] and _enlarge(table, row):
        start, full = table.starts[row], False
    place = start + used
    if not full:
        table.used[row] = used + 1
    elif used == 0:
        # no room for even the smallest row
        return
    else:
        place = start
        for k in range(start + 1, start + used):
            if table.weights[k, 0] < table.weights[place, 0]:
                place = k
    table.keys[place] = key
    table.weights[place, 0] = np.float32(slow)
    table.weights[place, 1] = np.float32(fast)


@jit
def accumulate(
    table: Neighbours,
    row: int,
    factors: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    touched: npt.NDArray[np.int32],
    count: int,
) -> int:
    """Add a row to ``scores`` [items, 4]; items that were not touched before are appended to ``touched``.

    The columns are: slow weight * factors[0], fast weight * factors[1], slow weight * factors[2], and 1 per row that
    names the item.
    """
    start, end = table.starts[row], table.starts[row] + table.used[row]
    keys, weights = table.keys[start:end], table.weights[start:end]
    slow, fast, third, one = factors[0], factors[1], factors[2], np.float32(1.0)
    for k in range(keys.size):
        # all reads before all writes, and rows without a sign: the four columns are then one vector
        key = np.uint32(keys[k])
        first, second, third_sum, rows = scores[key, 0], scores[key, 1], scores[key, 2], scores[key, 3]
        touched[count] = key
        count += int(rows == 0.0)
        scores[key, 0] = first + slow * weights[k, 0]
        scores[key, 1] = second + fast * weights[k, 1]
        scores[key, 2] = third_sum + third * weights[k, 0]
        scores[key, 3] = rows + one
    return count
