"""Ranked candidates: what the read path finds before it makes an answer of it, and what the mixture learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Float32s, Float64s, Int32s
from .mix import Situation

__all__ = ["Ranked"]


class Ranked(NamedTuple):
    """Candidate rows with their scores by every part [parts, candidates], in the mixture's order, and by the mixture.

    ``silent`` are the parts that had no say at all: the model, say, while there is none.
    """

    rows: Int32s
    mix: Float64s
    scores: Float32s
    silent: frozenset[str]
    # the parts that know a few items only: rows, some of them several times, and what each adds to its item's score
    few: dict[str, tuple[Int32s, Float32s]]
    situation: Situation
    version: int
    source: str

    def place(self, item_row: int | None) -> int:
        """Return the place of an item among the candidates; -1 if it is none of them, and for None, a new item."""
        places = [] if item_row is None else np.flatnonzero(self.rows == item_row).tolist()
        return places[0] if places else -1

    def explained(self, names: Sequence[str], best: npt.NDArray[np.int64]) -> list[dict[str, float | None]]:
        """Return the scores of some candidates by the parts that had a say; None where one does not know the item."""
        columns = {
            name: scores.tolist()
            for name, scores in zip(names, self.scores[:, best], strict=True)
            if name not in self.silent
        }
        return [
            {name: None if column[i] != column[i] else column[i] for name, column in columns.items()}
            for i in range(best.size)
        ]
