"""Decayed popularity at several half-lives, with the leaders of each kept in order.

A value is kept inflated like the weights of ``neighbours``: an event then changes the value of its own item only, so
the list of the leaders is exact after one item has moved up.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.jit import jit

__all__ = ["Popularity", "bump", "deflation", "grown", "reserve", "restored", "saved"]

# items that are kept in order per half-life
_LEADERS = 1024
# exponent at which the values are scaled down: far from the limits of float64
_EXPONENT = 256
_PER_ITEM = ("counts", "values", "positions")


class Popularity(NamedTuple):
    """Values of ``items`` items at H half-lives.

    counts      float64 [items]      events of an item, never decayed
    values      float64 [H, items]   inflated decayed events of an item
    leaders     int32 [H, 1024]      item rows by falling value; the first ``lengths[h]`` are in use
    positions   int32 [H, items]     place of an item among the leaders; -1 is none
    half_lives  int64 [H]            in events
    bases       int64 [H]            event at which values are not inflated
    lengths     int64 [H]            leaders in use
    """

    counts: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    leaders: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    half_lives: npt.NDArray[np.int64]
    bases: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


def reserve(items: int, half_lives: tuple[float, ...]) -> Popularity:
    """Return values of zero for ``items`` items."""
    count = len(half_lives)
    return Popularity(
        counts=np.zeros(items),
        values=np.zeros((count, items)),
        leaders=np.zeros((count, _LEADERS), np.int32),
        positions=np.full((count, items), -1, np.int32),
        half_lives=np.array([max(1, round(value)) for value in half_lives], np.int64),
        bases=np.zeros(count, np.int64),
        lengths=np.zeros(count, np.int64),
    )


def grown(popularity: Popularity, items: int) -> Popularity:
    """Return the same values with room for ``items`` items."""
    extra = items - popularity.counts.size
    if extra <= 0:
        return popularity
    return popularity._replace(
        counts=np.pad(popularity.counts, (0, extra)),
        values=np.pad(popularity.values, ((0, 0), (0, extra))),
        positions=np.pad(popularity.positions, ((0, 0), (0, extra)), constant_values=-1),
    )


def saved(popularity: Popularity, items: int) -> dict[str, npt.NDArray[Any]]:
    """Return what has to be kept of the values of ``items`` items."""
    return {name: array[..., :items] if name in _PER_ITEM else array for name, array in popularity._asdict().items()}


def restored(popularity: Popularity, arrays: Mapping[str, npt.NDArray[Any]]) -> Popularity:
    """Return values of zero, with room for the items, filled with what was saved."""
    for name, array in arrays.items():
        getattr(popularity, name)[..., : array.shape[-1]] = array
    return popularity


@jit
def deflation(popularity: Popularity, level: int, now: int) -> float:
    """Return what turns an inflated value of half-life ``level`` into decayed events at event ``now``."""
    return float(2.0 ** ((popularity.bases[level] - now) / popularity.half_lives[level]))


@jit
def bump(popularity: Popularity, item: int, now: int) -> None:
    """Count event ``now`` for an item."""
    popularity.counts[item] += 1.0
    for level in range(popularity.half_lives.size):
        half_life = popularity.half_lives[level]
        while now - popularity.bases[level] >= _EXPONENT * half_life:
            popularity.bases[level] += _EXPONENT * half_life
            for k in range(popularity.counts.size):
                popularity.values[level, k] *= 2.0**-_EXPONENT
        popularity.values[level, item] += 2.0 ** ((now - popularity.bases[level]) / half_life)
        _lift(popularity, level, item)


@jit
def _lift(popularity: Popularity, level: int, item: int) -> None:
    leaders, positions = popularity.leaders[level], popularity.positions[level]
    values = popularity.values[level]
    value = values[item]
    at = positions[item]
    if at < 0:
        length = popularity.lengths[level]
        if length < leaders.size:
            popularity.lengths[level] = length + 1
            at = length
        else:
            at = length - 1
            if values[leaders[at]] >= value:
                return
            positions[leaders[at]] = -1
    while at > 0 and values[leaders[at - 1]] < value:
        leaders[at] = leaders[at - 1]
        positions[leaders[at]] = at
        at -= 1
    leaders[at] = item
    positions[item] = at
