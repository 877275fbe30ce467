"""Cross entropy over the whole catalogue without ever holding all logits."""

from typing import Any

import torch

__all__ = ["next_item_loss"]

# logits of this many bytes at a time stay in the cache of a core
_BLOCK_BYTES = 4 << 20


def next_item_loss(hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of ``targets`` (t) int64 under softmax of ``hidden`` (t, d) by ``table`` (V, d); 0 if t is 0.

    Logits are made a block of positions at a time, and their gradients with them (as in arXiv 2411.09009): memory is
    independent of t, and the backward pass makes no logits at all.
    """
    if len(targets) == 0:
        return hidden.sum() * 0.0
    loss: torch.Tensor = _CrossEntropy.apply(hidden, table, targets)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """The loss with its gradient computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        block = max(16, _BLOCK_BYTES // (table.shape[0] * table.element_size()))
        hidden_grad, table_grad = torch.empty_like(hidden), torch.zeros_like(table)
        total = hidden.new_zeros(())
        for begin in range(0, len(hidden), block):
            part, target = hidden[begin : begin + block], targets[begin : begin + block]
            logits = part @ table.T
            given = logits.gather(1, target[:, None])
            top, place = logits.max(dim=1, keepdim=True)
            p = torch.softmax(logits, dim=1, out=logits)
            # log of the normaliser = largest logit - log of its probability, which is at least 1 / V
            total += (top - p.gather(1, place).log() - given).sum()
            if wanted:
                p.scatter_add_(1, target[:, None], p.new_full(target[:, None].shape, -1.0))
                torch.mm(p, table, out=hidden_grad[begin : begin + block])
                table_grad.addmm_(p.T, part)
        ctx.save_for_backward(hidden_grad, table_grad)
        ctx.scale = 1.0 / len(hidden)
        mean: torch.Tensor = total * ctx.scale
        return mean

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        hidden_grad, table_grad = ctx.saved_tensors
        scale = grads[0] * ctx.scale
        return hidden_grad * scale, table_grad * scale, None
