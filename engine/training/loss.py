"""Cross entropy of every event given those before it, against all items that can still be offered or drawn ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ...kernels import Weighted, cross_entropy
from ...kernels.arrays import Int64s
from ...kernels.jit import jit
from ..config import TrainingConfig
from ..model import SequenceModel, gap_features
from .windows import PackedWindows

__all__ = ["Drawn", "Sampler", "Targets", "Term", "at_events", "targets", "vectors_before", "window_loss"]

# a batch, rows of its events, which events are for the time of the query, vectors and the item table give a term
Term = Callable[
    [PackedWindows, torch.Tensor, NDArray[np.bool_] | None, torch.Tensor, torch.Tensor], torch.Tensor | None
]


class Drawn(NamedTuple):
    """Items that stand for the catalogue: rows (S), and the logarithms of how often each is expected among S draws."""

    items: Int64s
    log_expected: NDArray[np.float32]


class Sampler(NamedTuple):
    """Draws the items that stand for a large catalogue: half by how often they were seen, half evenly.

    ``cumulated`` (V) are the cumulated probabilities, ``log_probability`` (V) their logarithms one by one.
    """

    cumulated: NDArray[np.float64]
    log_probability: NDArray[np.float64]
    size: int

    @classmethod
    def of(cls, counts: Int64s, size: int) -> "Sampler":
        """Build from how often each of the V items was seen; ``size`` items are drawn at a time."""
        probability = 0.5 * counts / max(1, counts.sum()) + 0.5 / len(counts)
        return cls(np.cumsum(probability / probability.sum()), np.log(probability), size)

    @classmethod
    def needed(cls, rows: Int64s, items: int, config: TrainingConfig) -> "Sampler | None":
        """Build for a catalogue that is too large to be learnt exactly, None for others.

        ``rows`` are the model's rows of all events; what is not below ``items`` is unknown and does not count.
        """
        if items <= config.sampled_above:
            return None
        return cls.of(np.bincount(rows[rows < items], minlength=items), config.negatives)

    def draw(self, rng: np.random.Generator) -> Drawn:
        """Draw with replacement, sorted by row."""
        items = np.sort(np.searchsorted(self.cumulated[:-1], rng.random(self.size), side="right"))
        return Drawn(items, (self.log_probability[items] + np.log(self.size)).astype(np.float32))


class Targets(NamedTuple):
    """Events of a batch that count, ``events`` ascending, and the pairs of them and negatives whose weight is not 1."""

    events: Int64s
    positions: Int64s
    columns: Int64s
    log_weights: NDArray[np.float32]


def targets(
    batch: PackedWindows,
    items: int,
    *,
    counted: NDArray[np.bool_] | None = None,
    seen_weight: float = 0.0,
    drawn: Drawn | None = None,
) -> Targets:
    """Choose the events of a batch that count: those of ``counted`` (T), None for all, whose item the model knows.

    An item that the user had earlier in the window is a negative of the weight ``seen_weight``: 0 leaves it out, as
    serving does, and repeats do not count then; 1 makes it a negative like others. Columns are the negatives' numbers:
    version rows, or places among the ``drawn``.
    """
    chosen = batch.items < items
    if counted is not None:
        chosen &= counted
    # where each item stands among the negatives
    every = np.arange(items + 1)
    first = every if drawn is None else np.searchsorted(drawn.items, every)
    return Targets(*_choose(batch.items, batch.offsets, chosen, seen_weight, first))


def vectors_before(model: SequenceModel, batch: PackedWindows, *, seed: int | None = None) -> torch.Tensor:
    """Return the vector (T, d) before each event, not modulated for the time of a query; see ``SequenceModel.encode``.

    A model that is not causal gives a meaningful one before the last event of each window only.
    """
    # what follows the last event of a window is not asked for
    last = np.zeros(len(batch.items), np.bool_)
    last[batch.offsets[1:] - 1] = True
    device = next(model.parameters()).device
    inputs = (batch.items[~last], batch.times_ms[~last], batch.offsets - np.arange(len(batch.offsets)))
    items, times_ms, offsets = map(torch.from_numpy, inputs)
    return model.encode(items.to(device, non_blocking=True), times_ms, offsets, seed=seed)


def at_events(
    model: SequenceModel, batch: PackedWindows, hidden: torch.Tensor, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """Modulate the vectors ``hidden`` (r, d) before events for queries at the times of these events.

    ``rows`` (r) are the events of the batch, None for all. A model without query time gives ``hidden`` unchanged.
    """
    if model.query_time is None:
        return hidden
    phi = gap_features(torch.from_numpy(batch.times_ms), torch.from_numpy(batch.offsets))
    phi = phi.to(hidden, non_blocking=True)
    return model.query(hidden, phi if rows is None else phi[rows])


def window_loss(
    model: SequenceModel,
    table: torch.Tensor,
    batch: PackedWindows,
    chosen: Targets,
    *,
    drawn: Drawn | None = None,
    precision: str = "float32",
    seed: int | None = None,
    query_time: NDArray[np.bool_] | None = None,
    angular: NDArray[np.bool_] | None = None,
    term: Term | None = None,
) -> torch.Tensor:
    """Return the mean loss of the chosen events of a batch, each given those before it and its time.

    ``table`` (V, d) is ``model.item_table()``; with ``drawn`` the sum over it is estimated from the drawn items
    (importance sampling). ``query_time`` (T) says which vectors are modulated for the time of their event, None all.
    Events of ``angular`` (T) send gradients to the directions of the item vectors only, not to their lengths. What
    ``term`` makes of the chosen events is added.
    """

    def sent(part: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(part).to(table.device, non_blocking=True)

    rows = sent(chosen.events)
    # some models give what autocast made, and the sums of a loss need more
    hidden = vectors_before(model, batch, seed=seed)[rows].to(table.dtype)
    modulated = at_events(model, batch, hidden, rows)
    if query_time is not None:
        modulated = torch.where(sent(query_time[chosen.events])[:, None], modulated, hidden)
    part = _Part(batch.items, chosen, modulated, drawn, precision)
    if angular is None:
        loss = part.loss(table)
    else:
        flags = angular[chosen.events]
        # lengths are those of the table, yet constants
        lengths = table.detach().norm(dim=1, keepdim=True)
        directions = F.normalize(table, dim=1) * lengths
        loss = part.loss(directions, flags) + part.loss(table, ~flags)
    more = None if term is None else term(batch, rows, query_time, modulated, table)
    return loss if more is None else loss + more


class _Part(NamedTuple):
    """Chosen events with the vectors ``hidden`` (r, d) at them."""

    items: Int64s
    chosen: Targets
    hidden: torch.Tensor
    drawn: Drawn | None
    precision: str

    def loss(self, table: torch.Tensor, flags: NDArray[np.bool_] | None = None) -> torch.Tensor:
        """Return the sum of the losses of the events that ``flags`` (r) picks, None for all, over the number of all."""
        (events, positions, columns, log_weights), hidden, drawn = self.chosen, self.hidden, self.drawn
        share = 1.0
        if flags is not None:
            inside = flags[positions]
            positions, columns, log_weights = (
                (np.cumsum(flags) - 1)[positions[inside]],
                columns[inside],
                log_weights[inside],
            )
            events, hidden = events[flags], hidden[torch.from_numpy(flags).to(hidden.device)]
            share = float(flags.mean())

        def sent(part: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(part).to(table.device, non_blocking=True)

        true = F.embedding(sent(self.items[events]), table)
        weighted = Weighted(sent(positions), sent(columns), sent(log_weights))
        if drawn is None:
            loss = cross_entropy(hidden, true, table, weighted, precision=self.precision)
        else:
            negatives, bias = F.embedding(sent(drawn.items), table), -sent(drawn.log_expected)
            loss = cross_entropy(hidden, true, negatives, weighted, bias=bias, precision=self.precision)
        return loss if flags is None else share * loss


@jit
def _choose(items: Any, offsets: Any, chosen: Any, seen_weight: float, first: Any) -> Any:
    # first (V + 1): the negatives of item v are columns first[v]:first[v + 1]
    known = len(first) - 1
    log_seen = np.log(seen_weight) if seen_weight > 0 else -np.inf
    # the target for which an item was noted last, so that no pair is noted twice
    noted = np.full(known, -1)
    pairs = 0
    for w in range(len(offsets) - 1):
        for t in range(offsets[w], offsets[w + 1]):
            if seen_weight == 0:
                for j in range(offsets[w], t):
                    if items[j] == items[t]:
                        chosen[t] = False
            if chosen[t]:
                pairs += _note(items, offsets[w], t, seen_weight, first, noted, log_seen, 0, None)
    events = np.flatnonzero(chosen)
    noted[:] = -1
    found = (np.empty(pairs, np.int64), np.empty(pairs, np.int64), np.empty(pairs, np.float32))
    filled = place = 0
    for w in range(len(offsets) - 1):
        for t in range(offsets[w], offsets[w + 1]):
            if chosen[t]:
                end = filled + _note(items, offsets[w], t, seen_weight, first, noted, log_seen, filled, found)
                found[0][filled:end] = place
                filled = end
                place += 1
    return events, found[0], found[1], found[2]


@jit
def _note(
    items: Any, begin: int, t: int, seen_weight: float, first: Any, noted: Any, log_seen: float, filled: int, found: Any
) -> Any:
    # count the pairs of target t, and write their columns and weights if there is room for them
    known = len(first) - 1
    pairs = 0
    for j in range(t, begin - 1 if seen_weight != 1 else t - 1, -1):
        item = items[j]
        if item >= known or noted[item] == t:
            continue
        noted[item] = t
        for column in range(first[item], first[item + 1]):
            if found is not None:
                found[1][filled + pairs] = column
                found[2][filled + pairs] = -np.inf if j == t else log_seen
            pairs += 1
    return pairs
