"""What catalogue records say of items, as counts: items near a user's last ones by attributes that few items share.

An attribute is a feature of a record, such as a category or a word of the title, hashed into one of B. For every
attribute the items that carry it are listed by their decayed events, in a table of ``neighbours`` whose rows are
attributes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s, Float64s, Int32s
from ...kernels.jit import jit
from . import neighbours
from .neighbours import Neighbours

__all__ = [
    "MOST",
    "PARTS",
    "Attributes",
    "candidates",
    "describe",
    "grown",
    "learn",
    "profile",
    "reserve",
    "restored",
    "saved",
    "scores",
]

# likeness to the last items, and the same with attributes that are bought now weighing more
PARTS = ("attributes", "attributes-recent")
# of a record so many attributes are read
MOST = 16
# items listed per attribute, all of them together, and the half-lives of their events, in events: who leads, and
# whether the attribute is sought now
_LISTED = 64
_FIRST_ENTRIES = 1 << 14
_MOST_ENTRIES = 1 << 22
_HALF_LIVES = (5_000.0, 1_000.0)
# weight of each next older event of the user
_DECAY = 0.8
# attributes of the user whose lists bring candidates
_LEADING = 16
# events that an item without any is listed with
_UNSEEN = 0.5
# added to the events of an item where candidates are chosen
_SMOOTHING = 0.05
_PER_LIST = ("starts", "used", "classes")


class Attributes(NamedTuple):
    """Attributes of ``items`` items among B.

    keys       int32 [items, 16]   attributes of an item, the first ``sizes[item]`` of each row
    sizes      int32 [items]       how many; 0 without a record
    carriers   float64 [B]         items that carry an attribute
    described  int64 [1]           items that have any
    listed     Neighbours          items of every attribute, by events that decay
    """

    keys: Int32s
    sizes: Int32s
    carriers: Float64s
    described: npt.NDArray[np.int64]
    listed: Neighbours


def reserve(items: int, buckets: int) -> Attributes:
    """Return attributes of which no item has any; 0 ``buckets`` for those that stay so."""
    return Attributes(
        keys=np.zeros((items, MOST), np.int32),
        sizes=np.zeros(items, np.int32),
        carriers=np.zeros(buckets),
        described=np.zeros(1, np.int64),
        listed=neighbours.reserve(buckets, _FIRST_ENTRIES, _LISTED, _MOST_ENTRIES if buckets else 0, _HALF_LIVES),
    )


def grown(attributes: Attributes, *, items: int = 0, entries: int = 0) -> Attributes:
    """Return the same with at least this capacity; ``entries`` are of the lists."""
    return attributes._replace(
        keys=neighbours.enlarged(attributes.keys, items),
        sizes=neighbours.enlarged(attributes.sizes, items),
        listed=neighbours.grown(attributes.listed, entries=entries),
    )


def saved(attributes: Attributes, items: int) -> dict[str, npt.NDArray[Any]]:
    """Return what has to be kept of the attributes of ``items`` items."""
    lists = neighbours.saved(attributes.listed, attributes.carriers.size)
    # of the attributes those that some item has
    rows = np.flatnonzero(attributes.listed.classes)
    lists |= {name: lists[name][rows] for name in _PER_LIST} | {"rows": rows}
    return {"item-sizes": attributes.sizes[:items], "item-keys": attributes.keys[_in_use(attributes)]} | lists


def restored(attributes: Attributes, arrays: Mapping[str, npt.NDArray[Any]]) -> Attributes:
    """Return attributes of which no item has any, with room for the items, filled with what was saved."""
    sizes, keys, rows, listed = arrays["item-sizes"], arrays["item-keys"], arrays["rows"], attributes.listed
    attributes.sizes[: sizes.size] = sizes
    attributes.keys[_in_use(attributes)] = keys
    np.add.at(attributes.carriers, keys, 1.0)
    attributes.described[0] = np.count_nonzero(sizes)
    for name in _PER_LIST:
        getattr(listed, name)[rows] = arrays[name]
    return attributes._replace(
        listed=neighbours.restored(listed, {name: arrays[name] for name in ("keys", "weights", "marks")})
    )


def _in_use(attributes: Attributes) -> npt.NDArray[np.bool_]:
    used: npt.NDArray[np.bool_] = np.arange(MOST) < attributes.sizes[:, None]
    return used


@jit
def describe(attributes: Attributes, item: int, keys: Int32s, now: int) -> bool:
    """Set the attributes of an item, at most ``MOST``, before event ``now``; return whether anything changed."""
    size = attributes.sizes[item]
    if size == keys.size and (attributes.keys[item, :size] == keys).all():
        return False
    for k in range(size):
        attributes.carriers[attributes.keys[item, k]] -= 1.0
    attributes.described[0] += int(keys.size > 0) - int(size > 0)
    attributes.sizes[item] = keys.size
    attributes.keys[item, : keys.size] = keys
    for k in range(keys.size):
        attributes.carriers[keys[k]] += 1.0
    _list(attributes, item, now, _UNSEEN)
    return True


@jit
def learn(attributes: Attributes, item: int, now: int) -> None:
    """Count event ``now`` of an item for its attributes."""
    if attributes.sizes[item]:
        _list(attributes, item, now, 1.0)


@jit
def _list(attributes: Attributes, item: int, now: int, weight: float) -> None:
    listed = attributes.listed
    neighbours.rescale(listed, now)
    slow, fast = weight * neighbours.inflation(listed, 0, now), weight * neighbours.inflation(listed, 1, now)
    for k in range(attributes.sizes[item]):
        neighbours.add(listed, attributes.keys[item, k], item, slow, fast)


@jit
def profile(attributes: Attributes, recent: Int32s, now: int, weights: Float32s, touched: Int32s) -> int:
    """Weigh the attributes of the items ``recent``, oldest first, into ``weights`` [2, B]; return how many ``touched``.

    An attribute weighs what is rare about it twice, for its say in the last items and in the ones that are scored. In
    the second row it is also multiplied by the root of its events of late.
    """
    count, factor = 0, 1.0
    for k in range(recent.size - 1, -1, -1):
        item = recent[k]
        size = attributes.sizes[item] if item < attributes.sizes.size else 0
        for j in range(size):
            key = attributes.keys[item, j]
            if weights[0, key] == 0.0:
                touched[count] = key
                count += 1
            weights[0, key] += np.float32(factor / np.sqrt(size))
        factor *= _DECAY
    listed = attributes.listed
    deflation = 1.0 / neighbours.inflation(listed, 1, now)
    for k in range(count):
        key = touched[k]
        rarity = np.log((attributes.described[0] + 1.0) / (attributes.carriers[key] + 1.0))
        start = listed.starts[key]
        sought = listed.weights[start : start + listed.used[key], 1].sum() * deflation
        # never zero: that is the mark of an attribute that is not the user's
        weights[0, key] = np.float32(max(weights[0, key] * rarity * rarity, 1e-12))
        weights[1, key] = np.float32(weights[0, key] * np.sqrt(sought))
    return count


@jit
def _likeness(attributes: Attributes, item: int, weights: Float32s) -> float:
    size = attributes.sizes[item]
    total = np.float32(0.0)
    for k in range(size):
        total += weights[attributes.keys[item, k]]
    return float(total / np.sqrt(max(size, 1)))


@jit
def scores(attributes: Attributes, rows: Int32s, weights: Float32s) -> Float32s:
    """Return the likeness of ``rows`` to the items that were weighed, [2, rows]; nan where they have nothing in common.

    It is the sum of the weights of an item's attributes, divided by the root of their number.
    """
    found = np.full((2, rows.size), np.float32(np.nan))
    for k in range(rows.size):
        if 0 <= rows[k] < attributes.sizes.size:
            for part in range(2):
                value = _likeness(attributes, rows[k], weights[part])
                if value > 0.0:
                    found[part, k] = value
    return found


@jit
def candidates(
    attributes: Attributes, now: int, weights: Float32s, touched: Int32s, marks: npt.NDArray[np.int8]
) -> tuple[Int32s, Float32s]:
    """Return items that carry what weighs most, where ``marks`` are zero, and by what to choose among them.

    That is their likeness times the root of their events, so that of many that are alike the sought ones come first.
    """
    listed = attributes.listed
    leading = touched[np.argsort(-weights[0][touched], kind="mergesort")[:_LEADING]]
    most = leading.size * int(listed.limits[0])
    items, values = np.empty(most, np.int32), np.empty(most, np.float32)
    count = 0
    deflation = 1.0 / neighbours.inflation(listed, 0, now)
    for key in leading:
        start = listed.starts[key]
        for k in range(start, start + listed.used[key]):
            item = listed.keys[k]
            if marks[item] == 0:
                # until all are gathered
                marks[item] = -1
                items[count] = item
                events = listed.weights[k, 0] * deflation + _SMOOTHING
                values[count] = _likeness(attributes, item, weights[0]) * np.sqrt(events)
                count += 1
    for k in range(count):
        marks[items[k]] = 0
    return items[:count], values[:count]
