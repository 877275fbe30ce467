"""Cross entropy over the items that a user can still be offered, exact or over sampled items."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..model import StreamingModel, gap_features
from .windows import Cells

__all__ = ["Sampler", "spans", "window_loss"]

# logits of this many bytes at a time stay in the cache of a core
_BLOCK_BYTES = 4 << 20

Ints = NDArray[np.int64]


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

    def draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return drawn items (S) and the logarithms of how often each is expected among so many draws."""
        items = np.searchsorted(self.cumulated[:-1], rng.random(self.size), side="right")
        expected = self.log_probability[items] + np.log(self.size)
        return torch.from_numpy(items), torch.from_numpy(expected).float()


def spans(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Return the pairs (i, j) with first[i] <= j < last[i], ordered by i and then j."""
    count = np.maximum(0, last - first)
    index = np.repeat(np.arange(len(count), dtype=np.int64), count)
    offset = np.arange(len(index), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    return index, first[index] + offset


def window_loss(
    model: StreamingModel,
    batch: Cells,
    *,
    counted: NDArray[np.bool_] | None = None,
    exclude_own: bool = True,
    negatives: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, int]:
    """Return the mean loss of the events of a batch, each given those before it and its time, and how many counted.

    ``counted`` (b, l) picks events, None all of them; unknown items never count. With ``exclude_own`` the softmax
    leaves out what the user had earlier in the window, as serving does, and a repeat does not count. ``negatives`` are
    drawn items and the logarithms of their expected numbers of draws: the sum over the catalogue is then estimated from
    them (importance sampling; the event's own item is always in it).
    """
    width = batch.items.shape[1]
    items = batch.items.numpy()
    inside = batch.rows >= 0
    chosen = inside & (items < model.items)
    if counted is not None:
        chosen &= counted
    row, column = np.nonzero(chosen)
    index, earlier = spans(row * width, row * width + column)
    own = items.reshape(-1)[earlier]
    if exclude_own:
        fresh = np.ones(len(row), np.bool_)
        fresh[index[own == items[row[index], column[index]]]] = False
        row, column = row[fresh], column[fresh]
        index, earlier = spans(row * width, row * width + column)
        own = items.reshape(-1)[earlier]
        known = own < model.items
        index, own = index[known], own[known]
    else:
        index, own = index[:0], own[:0]
    hidden = model(batch.items, batch.times_ms)[:, :-1][row, column]
    phi = gap_features(batch.times_ms)[row, column] if model.query_time is not None else None
    hidden = model.query(hidden, phi)
    targets = torch.from_numpy(items[row, column])
    if negatives is not None:
        return _sampled(hidden, model.item_table(), targets, index, own, *negatives), len(row)
    loss: torch.Tensor = _Exact.apply(hidden, model.item_table(), targets, index, own)
    return loss, len(row)


class _Exact(torch.autograd.Function):
    """Mean over positions; logits and their gradients are made a block of positions at a time."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, index: Ints, own: Ints
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        hidden_grad, table_grad = torch.zeros_like(hidden), torch.zeros_like(table)
        total = hidden.new_zeros(())
        block = max(16, _BLOCK_BYTES // (table.shape[0] * table.element_size()))
        for begin in range(0, len(hidden), block):
            part, target = hidden[begin : begin + block], targets[begin : begin + block]
            pairs = slice(*np.searchsorted(index, [begin, begin + block]))
            logits = part @ table.T
            logits[torch.from_numpy(index[pairs] - begin), torch.from_numpy(own[pairs])] = -torch.inf
            total += F.cross_entropy(logits, target, reduction="sum")
            if wanted:
                grad = torch.softmax(logits, dim=1)
                grad[torch.arange(len(target)), target] -= 1.0
                torch.mm(grad, table, out=hidden_grad[begin : begin + block])
                table_grad.addmm_(grad.T, part)
        ctx.save_for_backward(hidden_grad, table_grad)
        ctx.scale = 1.0 / max(1, len(hidden))
        mean: torch.Tensor = total * ctx.scale
        return mean

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_grad, table_grad = ctx.saved_tensors
        scale = grads[0] * ctx.scale
        return hidden_grad * scale, table_grad * scale, None, None, None


def _sampled(
    hidden: torch.Tensor,
    table: torch.Tensor,
    targets: torch.Tensor,
    index: Ints,
    own: Ints,
    drawn: torch.Tensor,
    expected: torch.Tensor,
) -> torch.Tensor:
    logits = hidden @ table[drawn].T - expected
    logits = logits.masked_fill(drawn == targets[:, None], -torch.inf)
    if len(own):
        # an item may have been drawn more than once: its draws are neighbours in sorted order
        order = np.argsort(drawn.numpy(), kind="stable")
        ordered = drawn.numpy()[order]
        first, last = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
        pair, place = spans(first, last)
        barred = torch.zeros(logits.shape, dtype=torch.bool)
        barred[torch.from_numpy(index[pair]), torch.from_numpy(order[place])] = True
        logits = logits.masked_fill(barred, -torch.inf)
    true = (hidden * table[targets]).sum(1, keepdim=True)
    logits = torch.cat([true, logits], dim=1)
    loss: torch.Tensor = hidden.sum() * 0.0 if len(targets) == 0 else F.cross_entropy(logits, torch.zeros_like(targets))
    return loss
