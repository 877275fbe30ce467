"""Attributes of an item beside its id, and the vectors that a model makes of them.

The item's part is the sum of its buckets' vectors divided by the square root of their number, so that items with much
and with little text have parts of about one length. Items that are without events thereby stand near those that they
resemble (hashing: arXiv 0902.2206).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..events import Features

__all__ = ["ItemAttributes"]


class ItemAttributes(nn.Module):
    """Vectors of buckets, (B, d), beginning at zero, and the features of the items of a vocabulary, which never learn.

    The features are part of the weights on disk: a version reads its items the same way whatever the catalogue says
    later.
    """

    buckets: torch.Tensor
    starts: torch.Tensor

    def __init__(self, buckets: int, d: int, items: int, features: Features) -> None:
        """Raise ``ValueError`` if the features are not those of so many items among so many buckets."""
        super().__init__()
        inside = (features.buckets >= 0) & (features.buckets < buckets)
        lengths = np.diff(features.starts, prepend=0, append=len(features.buckets))
        if len(lengths) != items + 2 or lengths[0] or lengths[-1] or lengths.min() < 0 or not inside.all():
            raise ValueError(f"features of {items} items among {buckets} buckets expected")
        self.table = nn.Parameter(torch.zeros(buckets, d))
        self.register_buffer("buckets", torch.from_numpy(features.buckets))
        self.register_buffer("starts", torch.from_numpy(features.starts))

    @property
    def described(self) -> torch.Tensor:
        """bool (V): the items that have features."""
        return self.starts.diff() > 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the parts (..., d) of the items ``rows`` (...); rows beyond the vocabulary have zeros."""
        asked, place = torch.unique(rows, return_inverse=True)
        asked = asked.clamp(max=len(self.starts) - 1)
        first = self.starts[asked]
        count = F.pad(self.starts, (0, 1), value=len(self.buckets))[asked + 1] - first
        offsets = torch.cumsum(count, 0) - count
        inside = torch.arange(int(count.sum()), device=rows.device) - torch.repeat_interleave(offsets, count)
        buckets = self.buckets[torch.repeat_interleave(first, count) + inside]
        sums = F.embedding_bag(buckets, self.table, offsets, mode="sum")
        parts = sums * count.clamp(min=1).to(sums.dtype).rsqrt()[:, None]
        return F.embedding(place, parts)
