"""Measures of continual training: forgetting and transfer, from the quality on every cohort after every round."""

import numpy as np

from ..kernels.arrays import Float64s

__all__ = ["backward_transfer", "forgetting", "forward_transfer"]


def backward_transfer(quality: Float64s) -> float:
    """Return how much the quality on a cohort has changed since the round that learnt it, on average.

    ``quality[i, j]`` is that on cohort j after round i, both counted from 0; round j learnt cohort j. The mean of
    quality[-1, j] - quality[j, j] over all cohorts but the last (Lopez-Paz and Ranzato, arXiv 1706.08840, eq. 3);
    below zero is forgetting.
    """
    rounds = _checked(quality)
    return float(np.mean(quality[-1, : rounds - 1] - np.diag(quality)[: rounds - 1]))


def forward_transfer(quality: Float64s, untrained: Float64s) -> float:
    """Return what the rounds before are worth on a cohort that was not learnt yet, on average.

    The mean of quality[j - 1, j] - untrained[j] over all cohorts but the first (Lopez-Paz and Ranzato, eq. 4);
    ``untrained`` is the quality of a model with its initial weights.
    """
    rounds = _checked(quality)
    if untrained.shape != (rounds,):
        raise ValueError(f"expected the quality of an untrained model on {rounds} cohorts, got {untrained.shape}")
    return float(np.mean(np.diag(quality, 1) - untrained[1:]))


def forgetting(quality: Float64s) -> float:
    """Return how far the quality on a cohort fell from its best, on average; below zero where it rose.

    The mean over all cohorts but the last of the best quality of the rounds before the last one, less the last round's
    (Chaudhry et al., arXiv 1801.10112, definition of forgetting).
    """
    rounds = _checked(quality)
    return float(np.mean(quality[:-1, : rounds - 1].max(axis=0) - quality[-1, : rounds - 1]))


def _checked(quality: Float64s) -> int:
    if quality.ndim != 2 or quality.shape[0] != quality.shape[1] or quality.shape[0] < 2:
        raise ValueError(f"expected as many rounds as cohorts, two at least, got an array of {quality.shape}")
    return int(quality.shape[0])
