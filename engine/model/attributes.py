"""Attributes of an item beside its id, hashed into buckets, and the vectors that a model makes of them.

An item's features are names such as ``category=drama``, ``word=matrix`` or ``brand=acme``. Each falls into one of B
buckets by a hash that is the same on every machine, and the item's part is the sum of its buckets' vectors divided by
the square root of their number, so that items with much and with little text have parts of about one length. Items that
without events thereby stand near those that they resemble (hashing: arXiv 0902.2206).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...kernels.arrays import Int64s
from ..events import Item

__all__ = ["Features", "ItemAttributes", "item_features"]

# a record may be as long as a message: its first features say enough
_MAX_FEATURES = 64
# longer texts are descriptions or addresses, which no two items share
_MAX_TEXT = 64
_WORD = re.compile(r"\w+")


class Features(NamedTuple):
    """The buckets of some items: those of item i are ``buckets[starts[i] : starts[i + 1]]``, ascending."""

    buckets: Int64s  # (F)
    starts: Int64s  # (items + 1)

    @property
    def counts(self) -> Int64s:
        """How many features each item has."""
        return np.diff(self.starts)


def item_features(records: Iterable[Item | None], buckets: int) -> Features:
    """Return the features of catalogue records, in their order, among ``buckets``; None has none.

    Read are the categories, the words of the title, and every attribute that is a short string, a truth value or an
    integer, or a list of those. Availability and ids are not.
    """
    found = [sorted({_bucket(name, buckets) for name in _names(record)}) for record in records]
    starts = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(each) for each in found], out=starts[1:])
    return Features(np.array([bucket for each in found for bucket in each], np.int64), starts)


def _names(record: Item | None) -> list[str]:
    if record is None:
        return []
    names = [f"category={name.casefold()}" for name in record.categories]
    names += [f"word={word}" for word in _WORD.findall((record.title or "").casefold())]
    for field, value in sorted(record.attributes.items()):
        names += [f"{field}={text}" for text in _texts(value)]
    return list(dict.fromkeys(names))[:_MAX_FEATURES]


def _texts(value: object) -> Iterator[str]:
    for entry in value if isinstance(value, list | tuple) else (value,):
        if isinstance(entry, int) or (isinstance(entry, str) and len(entry) <= _MAX_TEXT):
            yield str(entry).casefold()


def _bucket(name: str, buckets: int) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % buckets


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
