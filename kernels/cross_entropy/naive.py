"""The truth: all logits at once, by the definition."""

import torch

__all__ = ["cross_entropy_naive"]


def cross_entropy_naive(
    hidden: torch.Tensor,
    true: torch.Tensor,
    rivals: torch.Tensor,
    positions: torch.Tensor,
    columns: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Return the mean loss; arguments as in ``cross_entropy``."""
    own = (hidden * true).sum(1, keepdim=True)  # (t, 1)
    logits = hidden @ rivals.T  # (t, s)
    if bias is not None:
        logits = logits + bias
    barred = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    barred[positions, columns] = True
    logits = torch.cat([own, logits.masked_fill(barred, -torch.inf)], dim=1)
    return (torch.logsumexp(logits, 1) - own[:, 0]).sum() / max(1, len(hidden))
