"""The recommenders of river: matrix factorisation that takes one gradient step per event."""

from typing import Any

import numpy as np

from ...kernels.arrays import Float64s
from .arrays import grown

__all__ = ["RiverBiasedMf", "RiverFunkMf"]

_FACTORS = 10
_SEED = 0


class _Factors:
    """What both have: a vector of every user and every item."""

    def __init__(self, model: Any) -> None:
        # river's models have no types
        self._model = model
        self._items = 0
        # the model's vectors of the items in one array: river has an array for each
        self._vectors = np.zeros((1024, _FACTORS))

    def scores(self, user: int) -> Float64s:
        """Return the scores of items 0, 1, ..., as the model's own ``predict_one`` gives them; a new array."""
        if self._items == 0:
            return np.zeros(0)
        with np.errstate(over="ignore", invalid="ignore"):
            scores: Float64s = self._vectors[: self._items] @ self._model.u_latents[user]
        return scores

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:
        """Take one gradient step towards the event's ``weight``."""
        # weights of another size than ratings can make a factorisation diverge, which then ranks accordingly
        with np.errstate(over="ignore", invalid="ignore"):
            self._model.learn_one(user=user, item=item, y=weight)
        self._vectors = grown(self._vectors, item)
        for changed in {item, *range(self._items, item)}:
            self._copy(changed)
        self._items = max(self._items, item + 1)

    def _copy(self, item: int) -> None:
        self._vectors[item] = self._model.i_latents[item]


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
        self._biases = np.zeros(1024)

    def scores(self, user: int) -> Float64s:
        """Return the scores of items 0, 1, ... as the model's own ``predict_one`` gives them; a new array."""
        scores = super().scores(user)
        scores += self._biases[: self._items]
        scores += self._model.global_mean.get() + self._model.u_biases[user]
        return scores

    def _copy(self, item: int) -> None:
        super()._copy(item)
        self._biases = grown(self._biases, item)
        self._biases[item] = self._model.i_biases[item]
