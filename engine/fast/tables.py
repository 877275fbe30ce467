"""The tables that events are folded into, and the working memory of queries."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s, Int32s
from .attributes import Attributes
from .neighbours import Neighbours
from .popularity import Popularity

__all__ = ["Few", "Marks", "Memory", "Scratch"]

Marks = npt.NDArray[np.int8]


class Memory(NamedTuple):
    """What events are folded into: items, pairs of items: unordered, ordered, direct successors; and attributes."""

    popular: Popularity
    together: Neighbours
    after: Neighbours
    direct: Neighbours
    attributes: Attributes


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
    weights   float32 [2, attributes]            of the user's attributes
    weighed   int32 [REACH * attributes an item] attributes that have weights
    counts    int64 [3]                          how many
    marks     int8 [items]                       zero between calls
    """

    together: Float32s
    after: Float32s
    touched: npt.NDArray[np.int32]
    weights: Float32s
    weighed: Int32s
    counts: npt.NDArray[np.int64]
    marks: Marks
