"""The recommenders of river: matrix factorisation that takes one gradient step per event."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import FloatArray

__all__ = ["RiverBiasedMf", "RiverFunkMf"]

_FACTORS = 10
_SEED = 0


class _Factors:
    """What both have: a vector of every user and every item."""

    def __init__(self, model: Any) -> None:
        # river's models have no types
        self._model = model
        self._items = 0

    def scores(self, user: int) -> FloatArray:
        """Return the scores of items 0, 1, ..., as the model's own ``predict_one`` gives them; a new array."""
        if self._items == 0:
            return np.zeros(0)
        vectors: Mapping[int, FloatArray] = self._model.i_latents
        with np.errstate(over="ignore", invalid="ignore"):
            scores: FloatArray = np.stack([vectors[item] for item in range(self._items)]) @ self._model.u_latents[user]
        return scores

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:
        """Take one gradient step towards the event's ``weight``."""
        # weights of another size than ratings can make a factorisation diverge, which then ranks accordingly
        with np.errstate(over="ignore", invalid="ignore"):
            self._model.learn_one(user=user, item=item, y=weight)
        self._items = max(self._items, item + 1)


class RiverFunkMf(_Factors):
    """Funk's factorisation: the event's weight (its rating; 1 where there is none) as the product of two vectors.

    Steps of .035: with river's default of .1 the vectors diverge on ratings from 1 to 5.
    """

    name = "river-funk-mf"

    def __init__(self) -> None:
        # imported here: it takes most of a second, and who asks for other baselines does without
        from river import optim, reco

        super().__init__(reco.FunkMF(n_factors=_FACTORS, optimizer=optim.SGD(0.035), seed=_SEED))


class RiverBiasedMf(_Factors):
    """The same with a mean and with biases of users and items; steps of .02 for biases and .05 for vectors."""

    name = "river-biased-mf"

    def __init__(self) -> None:
        from river import optim, reco

        biases, vectors = optim.SGD(0.02), optim.SGD(0.05)
        super().__init__(reco.BiasedMF(n_factors=_FACTORS, bias_optimizer=biases, latent_optimizer=vectors, seed=_SEED))

    def scores(self, user: int) -> FloatArray:
        """Return the scores of items 0, 1, ... as the model's own ``predict_one`` gives them; a new array."""
        biases: Mapping[int, float] = self._model.i_biases
        scores = super().scores(user)
        scores += np.fromiter((biases[item] for item in range(self._items)), dtype=np.float64, count=self._items)
        scores += self._model.global_mean.get() + self._model.u_biases[user]
        return scores
