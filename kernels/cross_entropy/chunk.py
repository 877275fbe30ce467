"""A block of positions at a time: logits become probabilities, these the gradients, and then the block is forgotten.

The gradients are made in the forward pass, since everything that they need is in the cache then; backward only scales
them. The loss of a position is 0 and so are its gradients if all its negatives have the weight 0.
"""

from typing import Any

import torch

from .rows import softmax_rows

__all__ = ["CrossEntropyByBlocks"]

# logits of this many bytes at a time: on a CPU products with fewer rows repeat too much, with more they leave the cache
_BLOCK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
_LEAST_ROWS, _MOST_ROWS = 64, 16_384
# products in bfloat16 have a multiple of so many rows: oneDNN compiles and keeps code for every number of rows it meets
_STEP_ROWS = 64


class CrossEntropyByBlocks(torch.autograd.Function):
    """The mean loss; ``apply`` takes the arguments of ``cross_entropy`` in their order, the weighted pairs spread out.

    ``half``: products in bfloat16; ``compiled``: one pass over the logits by compiled code.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        true: torch.Tensor,
        negatives: torch.Tensor,
        positions: torch.Tensor,
        columns: torch.Tensor,
        log_weights: torch.Tensor,
        bias: torch.Tensor | None,
        half: bool,
        compiled: bool,
    ) -> torch.Tensor:
        """Return the mean loss; make its gradients."""
        dtype = torch.bfloat16 if half else hidden.dtype
        table, vectors = negatives.to(dtype), _padded(hidden, dtype) if half else hidden
        hidden_grad, negatives_grad = torch.empty_like(hidden), torch.zeros_like(negatives)
        own = (hidden * true).sum(1)
        excess, loss = torch.empty_like(own), torch.empty_like(own)
        rows = min(
            _MOST_ROWS, max(_LEAST_ROWS, _BLOCK_BYTES[hidden.device.type] // (len(negatives) * dtype.itemsize + 1))
        )
        rows -= rows % _STEP_ROWS
        logits = hidden.new_empty((min(rows, len(vectors)), len(negatives)), dtype=dtype)
        begins = range(0, len(hidden), rows)
        # a single block has all pairs, and a GPU is not asked where they end
        bounds = [0, len(positions)]
        if len(begins) > 1:
            edges = torch.tensor([*begins, len(hidden)], device=positions.device)
            bounds = torch.searchsorted(positions, edges).tolist()
        bare = hidden.new_zeros(len(negatives)) if bias is None else bias.to(hidden.dtype)
        for place, begin in enumerate(begins):
            block = slice(begin, begin + rows)
            pairs = slice(bounds[place], bounds[place + 1])
            # the last block may have rows beyond the positions: without a vector they add nothing
            part, count = logits[: len(vectors[block])], len(own[block])
            torch.mm(vectors[block], table.T, out=part)
            step = softmax_rows if compiled else _softmax
            weighted = (positions[pairs] - begin, columns[pairs], log_weights[pairs])
            step(part[:count], own[block], bare, *weighted, loss[block], excess[block])
            hidden_grad[block] = (part @ table)[:count]
            if half:
                negatives_grad += part.T @ vectors[block]
            else:
                negatives_grad.addmm_(part.T, vectors[block])
        hidden_grad.addcmul_(excess[:, None], true)
        ctx.save_for_backward(hidden_grad, hidden * excess[:, None], negatives_grad)
        ctx.scale = 1.0 / max(1, len(hidden))
        mean: torch.Tensor = loss.sum() * ctx.scale
        return mean

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scale the gradients."""
        scale = grads[0] * ctx.scale
        hidden_grad, true_grad, negatives_grad = ctx.saved_tensors
        return hidden_grad * scale, true_grad * scale, negatives_grad * scale, None, None, None, None, None, None


def _padded(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the rows in another type, with rows of zeros to the next multiple of ``_STEP_ROWS``."""
    vectors = hidden.new_zeros((-(-len(hidden) // _STEP_ROWS) * _STEP_ROWS, hidden.shape[1]), dtype=dtype)
    vectors[: len(hidden)] = hidden
    return vectors


def _softmax(
    logits: torch.Tensor,
    own: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
    columns: torch.Tensor,
    log_weights: torch.Tensor,
    loss: torch.Tensor,
    excess: torch.Tensor,
) -> None:
    """Turn ``logits`` into the negatives' probabilities; ``excess`` gets the true one's minus 1."""
    wide = logits.to(bias.dtype) + bias
    wide[positions, columns] += log_weights.to(bias.dtype)
    top = torch.maximum(own, wide.amax(1)) if wide.shape[1] else own
    wide = torch.exp(wide - top[:, None])
    mine = torch.exp(own - top)
    total = wide.sum(1) + mine
    logits.copy_(wide / total[:, None])
    loss.copy_(torch.log(total) + top - own)
    excess.copy_(mine / total - 1)
