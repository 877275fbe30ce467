"""Rank and NDCG of one event: one law for the mixture, the quality monitor, the shadow and the gate.

The simulations judge by a separate implementation on purpose: an engine cannot referee itself.
"""

import numpy as np

from ..kernels.arrays import Float64s, Floating
from ..kernels.jit import jit

__all__ = ["DEPTH", "ndcg", "ndcgs", "rank", "ranks"]


# NDCG@10
DEPTH = 10


@jit
def rank(score: float, scores: Floating) -> float:
    """Return the rank of ``score`` among ``scores`` [candidates], which contain it: 1 is the best.

    Ties count against it, a candidate that is not scored (nan) is below all others, and a score that is not finite
    ranks nowhere: infinity.
    """
    if not np.isfinite(score):
        return np.inf
    count = 0
    for other in scores:
        if other >= score:
            count += 1
    return float(count)


@jit
def ranks(true: Floating, scores: Floating) -> Float64s:
    """Return the rank of ``true`` [events] among the rows of ``scores`` [events, candidates]; see `rank`."""
    found = np.empty(true.size)
    for event in range(true.size):
        found[event] = rank(true[event], scores[event])
    return found


@jit
def ndcg(rank: float, depth: float) -> float:
    """Return the NDCG of one event by the rank of its item: 1 / log2(1 + rank) up to ``depth``, else 0.

    ``depth`` infinity does not cut off: an event that moves from rank 40 to 20 is evidence, too.
    """
    return 1.0 / np.log2(1.0 + rank) if rank <= depth else 0.0


@jit
def ndcgs(ranks: Float64s, depth: float) -> Float64s:
    """Return the NDCG of events by their ranks [events]; see `ndcg`."""
    found = np.empty(ranks.size)
    for event in range(ranks.size):
        found[event] = ndcg(ranks[event], depth)
    return found
