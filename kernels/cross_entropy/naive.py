"""The truth: all logits at once, by the definition."""

import torch

__all__ = ["cross_entropy_naive"]


def cross_entropy_naive(
    hidden: torch.Tensor,
    true: torch.Tensor,
    negatives: torch.Tensor,
    positions: torch.Tensor,
    columns: torch.Tensor,
    log_weights: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Return the mean loss; arguments as in ``cross_entropy``."""
    own = (hidden * true).sum(1, keepdim=True)  # (t, 1)
    logits = hidden @ negatives.T  # (t, s)
    if bias is not None:
        logits = logits + bias
    shift = torch.zeros_like(logits, requires_grad=False)
    shift[positions, columns] = log_weights.to(logits.dtype)
    logits = torch.cat([own, logits + shift], dim=1)
    return (torch.logsumexp(logits, 1) - own[:, 0]).sum() / max(1, len(hidden))
