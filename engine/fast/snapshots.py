"""The bytes of a snapshot: a header with the shapes, then the arrays as they are."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["pack", "unpack"]

_FORMAT = 1
_LENGTH_BYTES = 4


class _Header(msgspec.Struct, frozen=True):
    format: int
    settings: str
    # part, name, dtype, shape
    arrays: list[tuple[str, str, str, tuple[int, ...]]]


def pack(settings: str, parts: Mapping[str, Mapping[str, npt.NDArray[Any]]]) -> bytes:
    """Return the bytes of the named arrays of each part; ``settings`` says what they were made under."""
    described, blocks = [], []
    for part, arrays in parts.items():
        for name, array in arrays.items():
            described.append((part, name, array.dtype.str, array.shape))
            if array.size:
                blocks.append(np.ascontiguousarray(array).data.cast("B"))
    header = msgspec.json.encode(_Header(_FORMAT, settings, described))
    return b"".join((len(header).to_bytes(_LENGTH_BYTES, "little"), header, *blocks))


def unpack(settings: str, blob: bytes) -> dict[str, dict[str, npt.NDArray[Any]]] | None:
    """Return the arrays by part, read-only; None if the bytes are not whole or were made under other settings."""
    start = _LENGTH_BYTES + int.from_bytes(blob[:_LENGTH_BYTES], "little")
    try:
        header = msgspec.json.decode(blob[_LENGTH_BYTES:start], type=_Header)
    except msgspec.DecodeError:
        return None
    if header.format != _FORMAT or header.settings != settings:
        return None
    parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for part, name, kind, shape in header.arrays:
        dtype = np.dtype(kind)
        count = math.prod(shape)
        if start + count * dtype.itemsize > len(blob):
            return None
        parts.setdefault(part, {})[name] = np.frombuffer(blob, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    return parts if start == len(blob) else None
