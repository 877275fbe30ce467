"""Baselines that learn every event; their settings are in docs/reference/protocols.md."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ...engine.errors import InputError
from ...kernels.arrays import Float64s
from .decayed_popularity import DecayedPopularity
from .item_knn import ItemKnn
from .markov import Markov
from .popularity import Popularity
from .river_mf import RiverBiasedMf, RiverFunkMf
from .sequential_rules import SequentialRules

__all__ = [
    "BASELINES",
    "SAMPLED",
    "Baseline",
    "DecayedPopularity",
    "ItemKnn",
    "Markov",
    "Popularity",
    "RiverBiasedMf",
    "RiverFunkMf",
    "SequentialRules",
    "chosen",
]


class Baseline(Protocol):
    """A recommender that is asked before every event and learns it afterwards.

    Items and users are dense codes; items are numbered in the order of their first event.
    """

    @property
    def name(self) -> str:
        """The name in reports."""
        ...

    def scores(self, user: int) -> Float64s:
        """Return the score of every item learnt so far, float64 by item code; asked any number of times."""
        ...

    def learn(self, user: int, item: int, weight: float = 1.0) -> None:
        """Learn one event and its weight, 1 when it has none; called once per event, in the order of the stream."""
        ...


BASELINES: dict[str, Callable[[], Baseline]] = {
    made.name: made
    for made in (Popularity, DecayedPopularity, Markov, SequentialRules, ItemKnn, RiverBiasedMf, RiverFunkMf)
}
# those that take milliseconds to rank: they are asked about a sample of the events, and no best baseline
SAMPLED = frozenset({RiverBiasedMf.name, RiverFunkMf.name})


def chosen(names: str | Sequence[str]) -> list[Baseline]:
    """Build the baselines called ``"all"``, ``"none"``, ``"a,b"`` or a list of names; raises ``InputError``."""
    if isinstance(names, str):
        names = {"all": list(BASELINES), "none": []}.get(names) or [part for part in names.split(",") if part != "none"]
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise InputError(f"no baseline is called {unknown[0]!r}; there are {', '.join(BASELINES)}, all and none")
    return [BASELINES[name]() for name in names]
