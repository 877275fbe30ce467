"""Updates of linear maps in the null space of what the parent model feeds them (Mamba-CL, arXiv 2411.15469)."""

from typing import Any, NamedTuple

import torch
from torch import nn

from ..windows import batches, pack
from .base import FitContext, Strategy

__all__ = ["NullSpace"]

_BATCH_EVENTS = 4_096
# what is outside the layers and may change freely: the items' own vectors, and what comes after the last layer
_FREE = ("embedding", "attributes", "query_time")


class _Map(NamedTuple):
    """A linear map's weights, bias in the last column, may change by multiples of ``projection`` (n + 1, n + 1)."""

    linear: nn.Linear
    projection: torch.Tensor

    def weights(self) -> torch.Tensor:
        """Return a copy of weights and bias (m, n + 1)."""
        return _joined(self.linear.weight.detach(), self.linear.bias.detach())


class NullSpace(Strategy):
    """Every change of a layer's linear map is projected so that its outputs at old inputs stay nearly as they were.

    The inputs of each map are gathered over about ``events`` events of old windows; the null space is that of the
    eigenvectors of their uncentred second moments that have at most ``energy`` of the trace together. What a layer has
    besides linear maps does not change. Item vectors do, so that the inputs themselves move.
    """

    name = "nullspace"

    def __init__(self, energy: float = 0.01, events: float = 20_000) -> None:
        self._energy, self._events = energy, int(events)

    def begin(self, context: FitContext) -> None:
        """Gather the inputs and find the null spaces."""
        moments = _moments(context, self._events)
        self._maps = [_Map(linear, _null_space(moment, self._energy)) for linear, moment in moments.items()]
        projected = {id(parameter) for linear in moments for parameter in linear.parameters()}
        self._frozen = [
            parameter
            for name, parameter in context.model.named_parameters()
            if not name.startswith(_FREE) and id(parameter) not in projected
        ]

    def gradients(self) -> None:
        """Keep what is frozen from moving, and remember the rest."""
        for parameter in self._frozen:
            parameter.grad = None
        self._before = [given.weights() for given in self._maps]

    def after_step(self, rate: float) -> None:
        """Project what the update did: Adam's step is none along its gradient."""
        del rate
        for given, before in zip(self._maps, self._before, strict=True):
            after = before + (given.weights() - before) @ given.projection
            given.linear.weight.data.copy_(after[:, :-1])
            given.linear.bias.data.copy_(after[:, -1])


def _moments(context: FitContext, events: int) -> dict[nn.Linear, torch.Tensor]:
    """Return the uncentred second moments (n + 1, n + 1) of the inputs of every linear map, a constant 1 at their end.

    The forward pass by layers is used, which calls the maps one by one.
    """
    model, old, rng = context.model.eval(), context.old, context.rng
    found: dict[nn.Linear, torch.Tensor] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        rows = inputs[0].detach().flatten(0, -2)
        rows = _joined(rows, rows.new_ones(len(rows))).double()
        found[module] = found.get(module, 0) + rows.T @ rows

    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks: list[Any] = [module.register_forward_pre_hook(note) for module in maps]
    count = min(len(old.starts), max(1, round(events / float(old.lengths.mean()))))
    chosen = old.take(rng.permutation(len(old.starts))[:count])
    device = next(model.parameters()).device
    with torch.no_grad():
        for part in batches(chosen, _BATCH_EVENTS, rng, padded=not model.streams):
            batch = pack(context.log, part, context.version_rows)
            items, times_ms, offsets = map(torch.from_numpy, (batch.items, batch.times_ms, batch.offsets))
            model.encode(items.to(device), times_ms, offsets, backend="chunk")
    for hook in hooks:
        hook.remove()
    return found


def _null_space(moment: torch.Tensor, energy: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(moment)  # ascending
    inside = values.clamp_min(0).cumsum(0) <= energy * values.clamp_min(0).sum()
    basis = vectors[:, inside]
    projection: torch.Tensor = (basis @ basis.T).float()
    return projection


def _joined(matrix: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    return torch.cat((matrix, column[:, None]), dim=1)
