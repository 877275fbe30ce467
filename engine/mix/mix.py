"""The mixture of slow and fast scores, learnt online from the events that came."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Float32s
from ..results import MixWeights
from . import kernels
from .kernels import Knowledge

__all__ = ["Mix", "Situation"]


# a situation is known by the events so far (from 1, 3, 10, 50 on) and by whether the last one is 10 minutes ago
_EVENTS = np.array([1, 3, 10, 50])
_PAUSE_MS = 600_000
_BUCKETS = 1 + 2 * len(_EVENTS)
_FIRST_WEIGHT = 0.3
_FIRST_SQUARE = 1.0
_COMBINATION = "combination"
_DIGEST_BYTES = 8


class Situation(NamedTuple):
    """When a user is asked about: events so far, and the time since the last one (0 without events)."""

    events: int
    gap_ms: int

    @property
    def bucket(self) -> int:
        """The number of the situation among those that have separate weights."""
        if self.events == 0:
            return 0
        level = int(np.searchsorted(_EVENTS, self.events, side="right")) - 1
        return 1 + 2 * level + (self.gap_ms >= _PAUSE_MS)


class Mix:
    """Ranks candidates by what has ranked best so far in the same situation.

    Its members are every part alone and one combination of all parts: softmax regression over the candidates, learnt
    event by event with AdaGrad, its weights the sum of shared ones and of those of the situation. Each learnt event is
    first ranked by every member; the member with the highest decayed NDCG@10 answers, so the mixture follows its best
    part at worst.

    ``names`` are the parts; those in ``logits`` may have any sign, the others are positive counts. A part that is nan
    at a candidate has no say there. Deterministic; not thread-safe.
    """

    def __init__(self, names: Sequence[str], *, logits: Sequence[str] = ("slow",)) -> None:
        self.names = tuple(names)
        self._logits = np.array([name in logits for name in names], np.bool_)
        self._digest = hashlib.blake2b(",".join(self.names).encode(), digest_size=_DIGEST_BYTES).digest()
        rows, features, members = _BUCKETS + 1, kernels.FEATURES * len(self.names), len(self.names) + 1
        # one block, so that the state is one copy
        self._values = np.zeros(rows * (2 * features + members + 1), np.float32)
        weights, squares, gains, events = np.split(
            self._values, np.cumsum([rows * features, rows * features, rows * members])
        )
        self._knowledge = Knowledge(
            weights.reshape(rows, features), squares.reshape(rows, features), gains.reshape(rows, members), events
        )
        self._knowledge.weights[-1] = _FIRST_WEIGHT
        self._knowledge.squares[:] = _FIRST_SQUARE

    def score(self, scores: Float32s, situation: Situation) -> npt.NDArray[np.float64]:
        """Return one score per candidate for ``scores`` [parts, candidates], parts in the order of ``names``."""
        if not scores.shape[1]:
            return np.empty(0)
        return kernels.score(self._knowledge, scores, self._logits, situation.bucket)

    def learn(self, scores: Float32s, position: int, situation: Situation) -> None:
        """Learn from one event whose item was candidate ``position``; -1 if it was none of them: nothing to learn."""
        if position >= 0:
            kernels.learn(self._knowledge, scores, self._logits, position, situation.bucket)

    def weights(self) -> MixWeights:
        """Return the decayed NDCG@10 of every member and the combination's shared weights of every part."""
        weights, _, gains, events = self._knowledge
        evidence = gains[-1] / max(float(events[-1]), 1.0)
        shared = weights[-1].reshape(-1, kernels.FEATURES)
        return MixWeights(
            dict(zip((*self.names, _COMBINATION), evidence.tolist(), strict=True)),
            {name: (float(log), float(share)) for name, (log, share) in zip(self.names, shared, strict=True)},
        )

    def chosen(self, situation: Situation) -> str:
        """Return the member that answers in a situation: the name of a part, or ``combination``."""
        return (*self.names, _COMBINATION)[kernels.best(self._knowledge, situation.bucket)]

    @property
    def state_bytes(self) -> int:
        """The length of a state."""
        return _DIGEST_BYTES + self._values.nbytes

    def state(self) -> bytes:
        """Return everything learnt so far as bytes: about 250 per part."""
        return self._digest + self._values.tobytes()

    def restore(self, blob: bytes) -> bool:
        """Take over a state; False, and nothing changes, if it is damaged or of other parts."""
        if not blob.startswith(self._digest) or len(blob) != self.state_bytes:
            return False
        self._values[:] = np.frombuffer(blob, np.float32, offset=_DIGEST_BYTES)
        return True
