"""The compiled parts of the mixture: features of candidates, scores, and one step of online learning."""

import numpy as np
import numpy.typing as npt

from ..fast.jit import jit

__all__ = ["FEATURES", "describe", "gains", "learn", "rank"]

Matrix = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]

# features per part: the score relative to the best candidate in logarithms, and the same as a share
FEATURES = 2
# relative scores are cut here: exp(-8) is as good as nothing
_FLOOR = -8.0
# ranks beyond this earn nothing
_DEPTH = 10


@jit
def describe(scores: Matrix, logits: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the features [candidates, parts * 2] of scores [parts, candidates]; nan is not scored.

    Parts that are no logits are positive counts and are taken as logarithms first. A candidate that a part does not
    score stands one below the worst that it scores.
    """
    parts, count = scores.shape
    features = np.zeros((count, FEATURES * parts))
    for p in range(parts):
        best, worst = -np.inf, np.inf
        values = np.empty(count)
        for c in range(count):
            value = float(scores[p, c])
            if not logits[p]:
                value = np.log(value) if value > 0.0 else np.nan
            values[c] = value
            if np.isfinite(value):
                best, worst = max(best, value), min(worst, value)
        if best == -np.inf:
            continue
        for c in range(count):
            if np.isfinite(values[c]):
                relative = max(values[c] - best, _FLOOR)
                features[c, FEATURES * p + 1] = np.exp(relative)
            else:
                relative = max(worst - best - 1.0, _FLOOR)
            features[c, FEATURES * p] = 0.5 * relative
    return features


@jit
def rank(scores: Vector, position: int) -> int:
    """Return 1 + the number of other candidates that score at least as much."""
    count = 0
    for c in range(scores.size):
        if scores[c] >= scores[position]:
            count += 1
    return count


@jit
def gains(scores: Matrix, position: int, target: Vector) -> None:
    """Write the NDCG@10 of every part for the true candidate; 0 where the part does not score it."""
    for p in range(scores.shape[0]):
        target[p] = 0.0
        value = scores[p, position]
        if not np.isfinite(value):
            continue
        place = 0
        for c in range(scores.shape[1]):
            if scores[p, c] >= value:
                place += 1
        if place <= _DEPTH:
            target[p] = 1.0 / np.log2(place + 1.0)


@jit
def learn(
    features: npt.NDArray[np.float64],
    position: int,
    bucket: int,
    weights: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    rate: float,
) -> float:
    """Take one AdaGrad step on the softmax loss of the true candidate; return the NDCG@10 before the step.

    ``weights`` [buckets + 1, features] are those shared by all buckets (the last row) and what each adds to them.
    """
    shared = weights.shape[0] - 1
    scores = features @ (weights[shared] + weights[bucket]).astype(np.float64)
    place = rank(scores, position)
    shares = np.exp(scores - scores.max())
    gradient = -(shares / shares.sum()) @ features + features[position]
    for row in (shared, bucket):
        for f in range(gradient.size):
            squares[row, f] += gradient[f] * gradient[f]
            weights[row, f] += rate * gradient[f] / np.sqrt(squares[row, f])
    return float(1.0 / np.log2(place + 1.0)) if place <= _DEPTH else 0.0
