"""The compiled parts of the mixture: scores of candidates, and one step of online learning."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s, Float64s
from ...kernels.jit import jit
from ..ranking import DEPTH, ndcg, rank

__all__ = ["FEATURES", "Knowledge", "best", "learn", "score"]


# features per part: the score relative to the best candidate in logarithms, and the same as a share
FEATURES = 2
# relative scores are cut here: exp(-8) is as good as nothing
_FLOOR = -8.0
# the bits of sqrt(1 / 2), from which to the double of it a number is near 1
_ROOT_HALF = int(np.sqrt(np.array([0.5])).view(np.int64)[0])
_LN_2 = float(np.log(2.0))
_RATE = 0.3
# the evidence of a member loses half its weight in about 3,500 learnt events
_KEPT = 1.0 - 1.0 / 5_000
# events of all situations that the evidence of one is blended with
_PRIOR = 50.0


class Knowledge(NamedTuple):
    """What was learnt; the last row of each array is shared by all situations.

    weights  float32 [situations + 1, features]   of the combination; those of a situation are added to the shared ones
    squares  float32 [situations + 1, features]   sums of squared gradients
    gains    float32 [situations + 1, members]    decayed NDCG@10 of each part and, last, of the combination
    events   float32 [situations + 1]             decayed number of events
    """

    weights: Float32s
    squares: Float32s
    gains: Float32s
    events: npt.NDArray[np.float32]


@jit
def _extremes(values: npt.NDArray[np.float32], logit: bool) -> tuple[float, float]:
    # the highest and the lowest of the scores that count; -inf first if there are none
    top, bottom = -np.inf, np.inf
    for value in values:
        if np.isfinite(value) and (logit or value > 0.0):
            top, bottom = max(top, float(value)), min(bottom, float(value))
    return top, bottom


@jit
def _logarithms(values: Float64s) -> Float64s:
    # of positive numbers: the exponent, and the series of the inverse hyperbolic tangent for what is left, within
    # sqrt(2) of 1; np.log is not made into vector instructions and took most of the mixture's time
    bits = values.view(np.int64)
    exponents, rest = np.empty(values.size), np.empty(values.size, np.int64)
    for k in range(values.size):
        exponent = (bits[k] - _ROOT_HALF) >> 52
        exponents[k], rest[k] = exponent, bits[k] - (exponent << 52)
    mantissas, logs = rest.view(np.float64), np.empty(values.size)
    for k in range(values.size):
        # unlike `/` without a check of the divisor, which no vector instruction has
        s = np.divide(mantissas[k] - 1.0, mantissas[k] + 1.0)
        q = s * s
        low = 1 / 11 + q * (1 / 13 + q * (1 / 15 + q * (1 / 17 + q * (1 / 19 + q * (1 / 21)))))
        series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * low))))
        logs[k] = exponents[k] * _LN_2 + 2.0 * s * series
    return logs


@jit
def _features(values: npt.NDArray[np.float32], logit: bool) -> tuple[Float64s, Float64s]:
    # of every candidate by one part: relative to the best in logarithms, and as a share; zero if the part knows none
    levels, shares = np.zeros(values.size), np.zeros(values.size)
    top, bottom = _extremes(values, logit)
    if top == -np.inf:
        return levels, shares
    if logit:
        for c in range(values.size):
            levels[c] = max(float(values[c]) - top, _FLOOR) if np.isfinite(values[c]) else 0.0
            shares[c] = np.exp(levels[c]) if np.isfinite(values[c]) else 0.0
        worst = bottom - top
    else:
        # a logarithm is taken of all, so there is no branch: of 1 where the part has no say
        relative = values / top
        for c in range(values.size):
            known = relative[c] > 0.0 and relative[c] < np.inf
            levels[c] = relative[c] if known else 1.0
            shares[c] = relative[c] if known else 0.0
        levels = _logarithms(levels)
        worst = np.log(bottom / top)
    # a candidate that a part does not score stands one below the worst that it scores
    missing = max(worst - 1.0, _FLOOR)
    for c in range(values.size):
        levels[c] = 0.5 * (max(levels[c], _FLOOR) if shares[c] > 0.0 else missing)
    return levels, shares


@jit
def _describe(scores: Float32s, logits: npt.NDArray[np.bool_]) -> Float64s:
    # [candidates, parts * FEATURES]
    parts, count = scores.shape
    features = np.zeros((count, FEATURES * parts))
    for p in range(parts):
        levels, shares = _features(scores[p], logits[p])
        for c in range(count):
            features[c, FEATURES * p], features[c, FEATURES * p + 1] = levels[c], shares[c]
    return features


@jit
def _combine(features: Float64s, bucket: int, weights: Float32s) -> Float64s:
    mixed = np.zeros(features.shape[0])
    for c in range(features.shape[0]):
        for f in range(features.shape[1]):
            mixed[c] += features[c, f] * (weights[-1, f] + weights[bucket, f])
    return mixed


@jit
def _mixed(scores: Float32s, logits: npt.NDArray[np.bool_], bucket: int, weights: Float32s) -> Float64s:
    # what _combine gives for _describe, without the features in memory
    mixed = np.zeros(scores.shape[1])
    for p in range(scores.shape[0]):
        levels, shares = _features(scores[p], logits[p])
        by_level = weights[-1, FEATURES * p] + weights[bucket, FEATURES * p]
        by_share = weights[-1, FEATURES * p + 1] + weights[bucket, FEATURES * p + 1]
        for c in range(mixed.size):
            mixed[c] = (mixed[c] + levels[c] * by_level) + shares[c] * by_share
    return mixed


@jit
def best(knowledge: Knowledge, bucket: int) -> int:
    """Return the member with the most evidence in a situation; the combination while none has more."""
    gains, events = knowledge.gains, knowledge.events
    member = combination = int(gains.shape[1]) - 1
    most = 0.0
    for k in range(combination, -1, -1):
        overall = gains[-1, k] / max(events[-1], 1.0)
        evidence = (gains[bucket, k] + _PRIOR * overall) / (events[bucket] + _PRIOR)
        if evidence > most:
            member, most = k, evidence
    return member


@jit
def score(knowledge: Knowledge, scores: Float32s, logits: npt.NDArray[np.bool_], bucket: int) -> Float64s:
    """Return the scores of the best member for scores [parts, candidates].

    What a part that answers alone does not score is ranked by the combination, below all that it scores.
    """
    mixed = _mixed(scores, logits, bucket, knowledge.weights)
    member = best(knowledge, bucket)
    if member == scores.shape[0] or not np.isfinite(scores[member]).any():
        return mixed
    bottom, top = np.inf, mixed.max()
    for c in range(mixed.size):
        if np.isfinite(scores[member, c]):
            bottom = min(bottom, scores[member, c])
    for c in range(mixed.size):
        value = scores[member, c]
        mixed[c] = value if np.isfinite(value) else bottom - 1.0 + (mixed[c] - top)
    return mixed


@jit
def learn(knowledge: Knowledge, scores: Float32s, logits: npt.NDArray[np.bool_], position: int, bucket: int) -> None:
    """Learn that candidate ``position`` came: the gain of every member, then an AdaGrad step on the softmax loss."""
    weights, squares, gains, events = knowledge
    parts = scores.shape[0]
    features = _describe(scores, logits)
    mixed = _combine(features, bucket, weights)
    for row in (-1, bucket):
        events[row] = events[row] * np.float32(_KEPT) + np.float32(1.0)
        for member in range(parts + 1):
            gains[row, member] *= np.float32(_KEPT)
    for member in range(parts + 1):
        place = rank(scores[member, position], scores[member]) if member < parts else rank(mixed[position], mixed)
        gain = np.float32(ndcg(place, DEPTH))
        gains[-1, member] += gain
        gains[bucket, member] += gain
    shares = np.exp(mixed - mixed.max())
    total = shares.sum()
    for f in range(features.shape[1]):
        gradient = features[position, f]
        for c in range(mixed.size):
            gradient -= shares[c] / total * features[c, f]
        for row in (-1, bucket):
            squares[row, f] += np.float32(gradient**2)
            weights[row, f] += np.float32(_RATE * gradient / np.sqrt(squares[row, f]))
