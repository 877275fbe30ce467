"""Top-M weighted neighbours per item in one arena whose rows grow by doubling, so that rare items cost little.

Weights decay exponentially with the number of learnt events. They are kept inflated: an event at time t adds
weight * 2 ** ((t - base) / half_life), so nothing else has to be touched; the table is scaled down and ``base``
advances when the exponent has grown by 32.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .jit import jit

__all__ = [
    "Neighbours",
    "accumulate",
    "add",
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
_CURSOR, _BASE, _FREE = 0, 1, 2
_PER_ENTRY = ("keys", "weights")
_PER_ITEM = ("starts", "used", "classes")


class Neighbours(NamedTuple):
    """One table; ``items`` is the capacity of the per-item arrays, ``entries`` that of the arena.

    keys     int32 [entries]      item row of a neighbour; in a free row the first key links to the next free row
    weights  float32 [entries]    inflated weight of a neighbour
    starts   int64 [items]        first entry of an item's row
    used     int32 [items]        neighbours in the row
    classes  int8 [items]         the row has 4 * 2 ** (class - 1) entries; class 0 has none
    limits   int64 [2]            (entries of the largest row, half-life in events)
    marks    int64 [2 + classes]  (first entry never used, event at which weights are not inflated, free rows)
    """

    keys: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    used: npt.NDArray[np.int32]
    classes: npt.NDArray[np.int8]
    limits: npt.NDArray[np.int64]
    marks: npt.NDArray[np.int64]


def reserve(items: int, entries: int, width: int, half_life: int) -> Neighbours:
    """Return an empty table; ``width`` neighbours per item, rounded up to 4 times a power of two."""
    rounded = max(_SMALLEST, 1 << (width - 1).bit_length())
    marks = np.full(_FREE + _CLASSES, -1, np.int64)
    marks[:_FREE] = 0
    return Neighbours(
        keys=np.zeros(entries, np.int32),
        weights=np.zeros(entries, np.float32),
        starts=np.zeros(items, np.int64),
        used=np.zeros(items, np.int32),
        classes=np.zeros(items, np.int8),
        limits=np.array([rounded, half_life], np.int64),
        marks=marks,
    )


def grown(table: Neighbours, *, items: int = 0, entries: int = 0) -> Neighbours:
    """Return the same table with at least this capacity."""
    arrays = table._asdict()
    for names, size in ((_PER_ENTRY, entries), (_PER_ITEM, items)):
        arrays |= {name: np.pad(arrays[name], (0, max(0, size - arrays[name].size))) for name in names}
    return Neighbours(**arrays)


def saved(table: Neighbours, items: int) -> dict[str, npt.NDArray[Any]]:
    """Return what has to be kept of a table that knows ``items`` items."""
    entries = int(table.marks[_CURSOR])
    arrays = {name: getattr(table, name)[:entries] for name in _PER_ENTRY}
    return arrays | {name: getattr(table, name)[:items] for name in _PER_ITEM} | {"marks": table.marks}


def restored(table: Neighbours, arrays: Mapping[str, npt.NDArray[Any]]) -> Neighbours:
    """Return an empty table filled with what was saved; it has room for the items already."""
    full = grown(table, entries=arrays["keys"].size)
    for name, array in arrays.items():
        getattr(full, name)[: array.size] = array
    return full


@jit
def headroom(table: Neighbours, additions: int) -> bool:
    """Whether so many additions find room in the arena whatever they are."""
    return bool(table.marks[_CURSOR] + additions * table.limits[0] <= table.keys.size)


@jit
def inflation(table: Neighbours, now: int) -> float:
    """Return what a weight of event ``now`` is multiplied with."""
    return float(2.0 ** ((now - table.marks[_BASE]) / table.limits[1]))


@jit
def rescale(table: Neighbours, now: int) -> None:
    """Scale the table down when the inflation has grown too large; to be called before weights are added."""
    while now - table.marks[_BASE] >= _EXPONENT * table.limits[1]:
        table.marks[_BASE] += _EXPONENT * table.limits[1]
        shrink = np.float32(2.0**-_EXPONENT)
        for row in range(table.starts.size):
            start = table.starts[row]
            for k in range(start, start + table.used[row]):
                table.weights[k] *= shrink


@jit
def _enlarge(table: Neighbours, row: int) -> None:
    level = table.classes[row]
    size = _SMALLEST << level
    start = table.marks[_FREE + level + 1]
    if start >= 0:
        table.marks[_FREE + level + 1] = table.keys[start]
    else:
        start = table.marks[_CURSOR]
        table.marks[_CURSOR] = start + size
    if level > 0:
        old = table.starts[row]
        for k in range(table.used[row]):
            table.keys[start + k] = table.keys[old + k]
            table.weights[start + k] = table.weights[old + k]
        table.keys[old] = table.marks[_FREE + level]
        table.marks[_FREE + level] = old
    table.starts[row] = start
    table.classes[row] = level + 1


@jit
def add(table: Neighbours, row: int, key: int, weight: float) -> None:
    """Add to the weight of a neighbour; in a full row a new one takes the place of the weakest.

    The newcomer starts with its own weight. Starting with the weight that it replaces (the space-saving counter) keeps
    more of what is frequent and puts chance neighbours at the top of the ranking: on ML-100k it halved the hits.
    """
    start, used = table.starts[row], table.used[row]
    for k in range(start, start + used):
        if table.keys[k] == key:
            table.weights[k] += np.float32(weight)
            return
    if used == table.limits[0]:
        weakest = start
        for k in range(start + 1, start + used):
            if table.weights[k] < table.weights[weakest]:
                weakest = k
        table.keys[weakest] = key
        table.weights[weakest] = np.float32(weight)
        return
    level = table.classes[row]
    if level == 0 or used == _SMALLEST << (level - 1):
        _enlarge(table, row)
        start = table.starts[row]
    table.keys[start + used] = key
    table.weights[start + used] = np.float32(weight)
    table.used[row] = used + 1


@jit
def accumulate(
    table: Neighbours,
    row: int,
    weight: float,
    scores: npt.NDArray[np.float32],
    touched: npt.NDArray[np.int32],
    count: int,
) -> int:
    """Add ``weight`` times the row to ``scores``; items that were at zero are appended to ``touched``."""
    start = table.starts[row]
    for k in range(start, start + table.used[row]):
        key = table.keys[k]
        if scores[key] == 0.0:
            touched[count] = key
            count += 1
        scores[key] += np.float32(weight) * table.weights[k]
    return count
