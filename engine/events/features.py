"""Features: what a catalogue record says of an item beside its id, as names that are hashed into buckets.

Such as ``category=drama``, ``word=matrix``, ``brand=acme``, ``price~17``; the hash is the same on every machine.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .types import Item

__all__ = ["Features", "feature_buckets", "item_features"]

# a record may be as long as a message: its first features say enough
_MAX_FEATURES = 64
# longer texts are descriptions or addresses, which no two items share
_MAX_TEXT = 64
# bins of a number each time it doubles
_BINS = 4
_WORD = re.compile(r"\w+")


class Features(NamedTuple):
    """The buckets of some items: those of item i are ``buckets[starts[i] : starts[i + 1]]``, ascending."""

    buckets: npt.NDArray[np.int64]  # (F)
    starts: npt.NDArray[np.int64]  # (items + 1)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many features each item has."""
        return np.diff(self.starts)


def item_features(records: Iterable[Item | None], buckets: int) -> Features:
    """Return the features of catalogue records, in their order, among ``buckets``; None has none.

    Read are the categories, the words of the title, and every attribute that is a short string, a truth value, an
    integer or a number, which falls into one of four bins per doubling, or a list of those. Availability and ids are
    not.
    """
    found = [sorted(feature_buckets(record, buckets)) for record in records]
    starts = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(each) for each in found], out=starts[1:])
    return Features(np.array([bucket for each in found for bucket in each], np.int64), starts)


def feature_buckets(record: Item | None, buckets: int) -> list[int]:
    """Return the features of one record, each once: categories first, then the title, then the other attributes."""
    return list(dict.fromkeys(_bucket(name, buckets) for name in _names(record)))


def _names(record: Item | None) -> list[str]:
    if record is None:
        return []
    names = [f"category={name.casefold()}" for name in record.categories]
    names += [f"word={word}" for word in _WORD.findall((record.title or "").casefold())]
    for field, value in sorted(record.attributes.items()):
        names += [f"{field}{text}" for text in _texts(value)]
    return list(dict.fromkeys(names))[:_MAX_FEATURES]


def _texts(value: object) -> Iterator[str]:
    for entry in value if isinstance(value, list | tuple) else (value,):
        if isinstance(entry, int) or (isinstance(entry, str) and len(entry) <= _MAX_TEXT):
            yield f"={entry}".casefold()
        elif isinstance(entry, float) and math.isfinite(entry):
            yield f"~{math.copysign(round(_BINS * math.log2(1 + abs(entry))), entry):g}"


def _bucket(name: str, buckets: int) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % buckets
