"""Coverage of the catalogue and novelty of the lists of ten."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.arrays import Float64s, Int32s
from ..kernels.jit import jit
from .baselines.arrays import grown

__all__ = ["LENGTH", "Counts", "Lists", "top_items", "top_listed"]

LENGTH = 10


class Counts:
    """How often every item occurred so far."""

    def __init__(self) -> None:
        self._counts: Float64s = np.zeros(1024)
        self.events = 0
        self.items = 0

    def add(self, item: int) -> None:
        """Count one event of ``item``."""
        self._counts = grown(self._counts, item)
        self._counts[item] += 1
        self.events += 1
        self.items = max(self.items, item + 1)

    def surprise(self, items: Int32s) -> float:
        """Return the mean of -log2(events of the item / all events), in bits; every item occurred before."""
        return float(np.mean(np.log2(self.events / self._counts[items])))


class Lists:
    """The lists that one competitor gave: ``coverage@10`` and ``novelty@10``."""

    def __init__(self) -> None:
        self._shown: NDArray[np.bool_] = np.zeros(1024, dtype=np.bool_)
        self._surprise = 0.0
        self._lists = 0

    def add(self, items: Int32s, counts: Counts) -> None:
        """Take one list; an empty one counts for nothing."""
        if len(items) == 0:
            return
        self._shown = grown(self._shown, int(items.max()))
        self._shown[items] = True
        self._surprise += counts.surprise(items)
        self._lists += 1

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return the share of the items so far that were in a list, and the mean self-information of a list's items."""
        return {
            f"coverage@{LENGTH}": round(float(np.count_nonzero(self._shown)) / max(1, counts.items), 6),
            f"novelty@{LENGTH}": round(self._surprise / max(1, self._lists), 4),
        }


def top_listed(rows: Int32s, scores: Float64s, allowed: NDArray[np.bool_]) -> Int32s:
    """Return the best ten ``rows`` that are ``allowed`` and have a finite score, best first."""
    able = allowed[rows] & np.isfinite(scores)
    best = np.argsort(-scores[able], kind="stable")[:LENGTH]
    top: Int32s = rows[able][best]
    return top


def top_items(scores: Float64s, excluded: Int32s) -> Int32s:
    """Return the ten items with the highest finite ``scores`` that are not ``excluded``, best first."""
    top: Int32s = _top(scores, excluded)
    return top


@jit
def _top(scores: Float64s, excluded: Int32s) -> Int32s:
    out_of_play = np.zeros(len(scores), dtype=np.bool_)
    for place in range(len(excluded)):
        out_of_play[excluded[place]] = True
    items = np.zeros(LENGTH, dtype=np.int32)
    best = np.full(LENGTH, -np.inf)
    found = 0
    for item in range(len(scores)):
        score = scores[item]
        if out_of_play[item] or not np.isfinite(score) or (found == LENGTH and score <= best[LENGTH - 1]):
            continue
        place = min(found, LENGTH - 1)
        while place > 0 and best[place - 1] < score:
            best[place] = best[place - 1]
            items[place] = items[place - 1]
            place -= 1
        best[place] = score
        items[place] = item
        found = min(found + 1, LENGTH)
    return items[:found]
