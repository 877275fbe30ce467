"""Texts in one block of memory, searched and compared without the interpreter's lock."""

from collections.abc import Sequence

import numpy as np

from ...kernels.arrays import Bools, Bytes, Int32s, Int64s
from ...kernels.jit import jit

__all__ = ["Texts", "prepare"]


class Texts:
    """Texts one after the other as UTF-8, whose order by bytes is that by characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self._starts: Int64s = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=self._starts[1:])
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def containing(self, part: str) -> Bools:
        """Return which texts contain ``part``."""
        return _containing(self._bytes, self._starts, _encoded(part))

    def order(self, other: str) -> Int32s:
        """Return -1, 0 or 1 for every text that is less than ``other``, equal or greater."""
        return _order(self._bytes, self._starts, _encoded(other))


def prepare() -> None:
    """Compile what searches texts, which takes seconds the first time: no filter should be charged for it."""
    texts = Texts(["a"])
    texts.containing("a")
    texts.order("a")


def _encoded(text: str) -> Bytes:
    # a filter may hold a lone surrogate, which no text of a record has
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


@jit
def _containing(data: Bytes, starts: Int64s, part: Bytes) -> Bools:
    found = np.zeros(starts.size - 1, np.bool_)
    for text in range(found.size):
        for begin in range(starts[text], starts[text + 1] - part.size + 1):
            at = 0
            while at < part.size and data[begin + at] == part[at]:
                at += 1
            if at == part.size:
                found[text] = True
                break
    return found


@jit
def _order(data: Bytes, starts: Int64s, other: Bytes) -> Int32s:
    order = np.zeros(starts.size - 1, np.int32)
    for text in range(order.size):
        size = starts[text + 1] - starts[text]
        at = 0
        while at < min(size, other.size) and data[starts[text] + at] == other[at]:
            at += 1
        if at < size and at < other.size:
            order[text] = 1 if data[starts[text] + at] > other[at] else -1
        elif size != other.size:
            order[text] = 1 if size > other.size else -1
    return order
