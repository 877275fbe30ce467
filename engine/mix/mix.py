"""The mixture of slow and fast scores, learnt online from the events that came."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..fast import snapshots
from . import kernels

__all__ = ["Mix", "Situation"]

Scores = npt.NDArray[np.float32]

# a member's evidence loses half its weight in about 3,500 learnt events
_FORGET = 1.0 - 1.0 / 5_000
# events of all buckets that a bucket's own evidence is blended with
_PRIOR = 50.0
_RATES = (0.05, 0.2)
_FIRST_WEIGHT = 0.3
_FIRST_SQUARE = 0.01
_EVENTS = (1, 3, 10, 50)
_GAPS_S = (60, 3_600)
_BUCKETS = 1 + len(_EVENTS) * (len(_GAPS_S) + 1)


class Situation(NamedTuple):
    """When a user is asked about: events so far, and the time since the last one (0 without events)."""

    events: int
    gap_ms: int

    @property
    def bucket(self) -> int:
        """The number of the context that shares weights."""
        if self.events == 0:
            return 0
        level = int(np.searchsorted(_EVENTS, self.events, side="right")) - 1
        pause = int(np.searchsorted(_GAPS_S, self.gap_ms / 1_000, side="right"))
        return 1 + level * (len(_GAPS_S) + 1) + pause


class Mix:
    """Ranks candidates by what has ranked best so far in the same situation.

    Its members are every part alone and a few online-learnt combinations of all parts (softmax regression on the
    candidates, AdaGrad, weights shared plus weights of the situation). Each learnt event is first ranked by every
    member; the member with the highest decayed NDCG@10 answers, so the mixture follows its best part at worst.

    ``names`` are the parts; those in ``logits`` may have any sign, the others are positive counts. A part that is
    absent from a call, or nan at a candidate, has no say there. Deterministic; not thread-safe.
    """

    def __init__(self, names: Sequence[str], *, logits: Sequence[str] = ("slow",)) -> None:
        self._names = tuple(names)
        self._logits = np.array([name in logits for name in names], np.bool_)
        self._settings = ",".join(self._names)
        self._members = (*self._names, *(f"learnt-{rate:g}" for rate in _RATES))
        features = kernels.FEATURES * len(self._names)
        # [learners, buckets + the shared row, features]
        self._weights = np.zeros((len(_RATES), _BUCKETS + 1, features), np.float32)
        self._weights[:, -1] = _FIRST_WEIGHT
        self._squares = np.full_like(self._weights, _FIRST_SQUARE)
        # decayed NDCG@10 and decayed events; the last column is of all buckets
        self._gains = np.zeros((len(self._members), _BUCKETS + 1), np.float64)
        self._events = np.zeros(_BUCKETS + 1, np.float64)

    def score(self, parts: Mapping[str, Scores], situation: Situation) -> npt.NDArray[np.float64]:
        """Return one score per candidate; ``parts`` holds scores over the same candidates."""
        matrix = self._matrix(parts)
        member = self._best(situation.bucket, matrix)
        features = kernels.describe(matrix, self._logits)
        if member >= len(self._names):
            scores: npt.NDArray[np.float64] = features @ self._combination(member, situation.bucket)
            return scores
        # what the chosen part does not score is ranked below, by the combination
        rest = features @ self._combination(len(self._names), situation.bucket)
        known = np.isfinite(matrix[member])
        lowest = matrix[member][known].min(initial=0.0)
        alone: npt.NDArray[np.float64] = np.where(known, matrix[member], lowest - 1.0 + rest - rest.max(initial=0.0))
        return alone

    def learn(self, parts: Mapping[str, Scores], position: int, situation: Situation) -> None:
        """Learn from one event whose item was candidate ``position``; -1 if it was none of them."""
        if position < 0:
            return
        matrix = self._matrix(parts)
        bucket = situation.bucket
        found = np.empty(len(self._members))
        kernels.gains(matrix, position, found)
        features = kernels.describe(matrix, self._logits)
        for learner, rate in enumerate(_RATES):
            found[len(self._names) + learner] = kernels.learn(
                features, position, bucket, self._weights[learner], self._squares[learner], rate
            )
        for row in (bucket, -1):
            self._gains[:, row] = _FORGET * self._gains[:, row] + found
            self._events[row] = _FORGET * self._events[row] + 1.0

    def weights(self) -> dict[str, Any]:
        """Return the evidence of every member and the shared weights of the learnt combinations."""
        evidence = self._gains[:, -1] / max(self._events[-1], 1.0)
        weights = self._weights[:, -1].reshape(len(_RATES), -1, kernels.FEATURES)
        return {
            "ndcg@10": dict(zip(self._members, evidence.tolist(), strict=True)),
            "weights": {
                member: {name: row.tolist() for name, row in zip(self._names, rows, strict=True)}
                for member, rows in zip(self._members[len(self._names) :], weights, strict=True)
            },
        }

    def chosen(self, situation: Situation) -> str:
        """Return the member that answers in a situation."""
        everything = np.zeros((len(self._names), 1), np.float32)
        return self._members[self._best(situation.bucket, everything)]

    def state(self) -> bytes:
        """Return everything learnt so far as bytes, a few KiB."""
        return snapshots.pack(self._settings, {"mix": self._arrays()})

    def restore(self, blob: bytes) -> bool:
        """Take over a state; False, and nothing changes, if it is damaged or of other parts."""
        parts = snapshots.unpack(self._settings, blob)
        if parts is None:
            return False
        for name, array in self._arrays().items():
            array[...] = parts["mix"][name]
        return True

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"weights": self._weights, "squares": self._squares, "gains": self._gains, "events": self._events}

    def _matrix(self, parts: Mapping[str, Scores]) -> Scores:
        count = len(next(iter(parts.values())))
        absent = np.full(count, np.nan, np.float32)
        return np.stack([np.asarray(parts.get(name, absent), np.float32) for name in self._names])

    def _combination(self, member: int, bucket: int) -> npt.NDArray[np.float64]:
        weights = self._weights[member - len(self._names)]
        combined: npt.NDArray[np.float64] = (weights[-1] + weights[bucket]).astype(np.float64)
        return combined

    def _best(self, bucket: int, matrix: Scores) -> int:
        overall = self._gains[:, -1] / max(self._events[-1], 1.0)
        evidence = (self._gains[:, bucket] + _PRIOR * overall) / (self._events[bucket] + _PRIOR)
        # a part that scores nothing here can not answer; without evidence the first combination does
        evidence[len(self._names)] += 1e-9
        evidence[: len(self._names)][~np.isfinite(matrix).any(axis=1)] = -1.0
        return int(np.argmax(evidence))
