"""Rows of the models without a start token."""

import torch
from torch.nn import functional as F

__all__ = ["check_length", "columns"]


def columns(vectors: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Put a column of zeros before ``vectors`` (b, l, d) and zeros in place of the padding after ``lengths`` (b)."""
    if lengths is not None:
        inside = torch.arange(vectors.shape[1], device=vectors.device) < lengths.to(vectors.device)[:, None]
        vectors = vectors * inside[..., None]
    return F.pad(vectors, (0, 0, 1, 0))


def check_length(items: torch.Tensor, longest: int) -> None:
    """Raise ``ValueError`` if the rows ``items`` (b, l) are longer than a model can read."""
    if items.shape[1] > longest:
        raise ValueError(f"rows of at most model.max_length = {longest} events can be read, got {items.shape[1]}")
