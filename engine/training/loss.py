"""Cross entropy of every event given those before it, against all items that can still be offered or drawn ones."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch.nn import functional as F

from ...kernels import Barred, cross_entropy
from ..model import SequenceModel, gap_features
from .windows import Batch

__all__ = ["Drawn", "Sampler", "Targets", "targets", "vectors_before", "window_loss"]

Ints = NDArray[np.int64]


class Drawn(NamedTuple):
    """Items that stand for the catalogue: rows (S), and the logarithms of how often each is expected among S draws."""

    items: Ints
    log_expected: NDArray[np.float32]


class Sampler(NamedTuple):
    """Draws the items that stand for a large catalogue: half by how often they were seen, half evenly.

    ``cumulated`` (V) are the cumulated probabilities, ``log_probability`` (V) their logarithms one by one.
    """

    cumulated: NDArray[np.float64]
    log_probability: NDArray[np.float64]
    size: int

    @classmethod
    def of(cls, counts: Ints, size: int) -> "Sampler":
        """Build from how often each of the V items was seen; ``size`` items are drawn at a time."""
        probability = 0.5 * counts / max(1, counts.sum()) + 0.5 / len(counts)
        return cls(np.cumsum(probability / probability.sum()), np.log(probability), size)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw with replacement, sorted by row."""
        items = np.sort(np.searchsorted(self.cumulated[:-1], rng.random(self.size), side="right"))
        return Drawn(items, (self.log_probability[items] + np.log(self.size)).astype(np.float32))


class Targets(NamedTuple):
    """Events of a batch that count, ``events`` ascending; rival ``columns[i]`` is no rival for ``positions[i]``-th."""

    events: Ints
    positions: Ints
    columns: Ints


def targets(
    batch: Batch,
    items: int,
    *,
    counted: NDArray[np.bool_] | None = None,
    exclude_own: bool = True,
    drawn: Drawn | None = None,
) -> Targets:
    """Choose the events of a batch that count: those of ``counted`` (T), None for all, whose item the model knows.

    With ``exclude_own`` the rivals leave out what the user had earlier in the window, as serving does, and a repeat
    does not count. Columns are the rivals' numbers: version rows, or places among the ``drawn``.
    """
    chosen = batch.items < items
    if counted is not None:
        chosen &= counted
    # where each item stands among the rivals
    every = np.arange(items + 1)
    first = every if drawn is None else np.searchsorted(drawn.items, every)
    return Targets(*_choose(batch.items, batch.offsets, chosen, exclude_own, first))


def vectors_before(model: SequenceModel, batch: Batch, *, seed: int | None = None) -> torch.Tensor:
    """Return the vector (T, d) before each event, not modulated for the time of a query; see ``SequenceModel.encode``.

    A model that is not causal gives a meaningful one before the last event of each window only.
    """
    # what follows the last event of a window is not asked for
    last = np.zeros(len(batch.items), np.bool_)
    last[batch.offsets[1:] - 1] = True
    device = next(model.parameters()).device
    inputs = (batch.items[~last], batch.times_ms[~last], batch.offsets - np.arange(len(batch.offsets)))
    items, times_ms, offsets = (torch.from_numpy(part).to(device) for part in inputs)
    return model.encode(items, times_ms, offsets, seed=seed)


def window_loss(
    model: SequenceModel,
    table: torch.Tensor,
    batch: Batch,
    chosen: Targets,
    *,
    drawn: Drawn | None = None,
    precision: str = "float32",
    seed: int | None = None,
    query_time: NDArray[np.bool_] | None = None,
) -> torch.Tensor:
    """Return the mean loss of the chosen events of a batch, each given those before it and its time.

    ``table`` (V, d) is ``model.item_table()``; with ``drawn`` the sum over it is estimated from the drawn items
    (importance sampling). ``query_time`` (T) says which vectors are modulated for the time of their event, None all.
    """
    device = table.device
    rows = torch.from_numpy(chosen.events).to(device)
    hidden = vectors_before(model, batch, seed=seed)[rows]
    if model.query_time is not None:
        phi = gap_features(torch.from_numpy(batch.times_ms), torch.from_numpy(batch.offsets)).to(device)[rows]
        modulated = model.query(hidden, phi)
        if query_time is not None:
            modulated = torch.where(torch.from_numpy(query_time[chosen.events]).to(device)[:, None], modulated, hidden)
        hidden = modulated
    true = F.embedding(torch.from_numpy(batch.items[chosen.events]).to(device), table)
    barred = Barred(*(torch.from_numpy(part).to(device) for part in (chosen.positions, chosen.columns)))
    if drawn is None:
        return cross_entropy(hidden, true, table, barred, precision=precision)
    bias = -torch.from_numpy(drawn.log_expected).to(device)
    rivals = F.embedding(torch.from_numpy(drawn.items).to(device), table)
    return cross_entropy(hidden, true, rivals, barred, bias=bias, precision=precision)


@njit(cache=True, nogil=True)
def _choose(items: Any, offsets: Any, chosen: Any, exclude_own: bool, first: Any) -> Any:
    # first (V + 1): the rivals of item v are columns first[v]:first[v + 1]
    known = len(first) - 1
    pairs = 0
    for w in range(len(offsets) - 1):
        for t in range(offsets[w], offsets[w + 1]):
            if not chosen[t]:
                continue
            begin = offsets[w] if exclude_own else t
            for j in range(begin, t):
                if items[j] == items[t]:
                    chosen[t] = False
            if chosen[t]:
                pairs += first[items[t] + 1] - first[items[t]]
                for j in range(begin, t):
                    if items[j] < known:
                        pairs += first[items[j] + 1] - first[items[j]]
    events = np.flatnonzero(chosen)
    positions, columns = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    filled = place = 0
    for w in range(len(offsets) - 1):
        for t in range(offsets[w], offsets[w + 1]):
            if not chosen[t]:
                continue
            begin = offsets[w] if exclude_own else t
            for j in range(begin, t + 1):
                if items[j] < known:
                    for column in range(first[items[j]], first[items[j] + 1]):
                        positions[filled], columns[filled] = place, column
                        filled += 1
            place += 1
    return events, positions, columns
