"""Sparse counts of item pairs: one open-addressing table per item, all tables in one pool."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...kernels.arrays import Float64s

__all__ = ["PairCounts"]

_SMALLEST_BITS = 2
_CLASSES = 40


class PairCounts:
    """Weights of ordered pairs (row, column), read a whole row at a time.

    The pool holds ``keys`` (column + 1; 0 is an empty slot) and ``values``; the table of row r is the slots
    ``offsets[r] .. offsets[r] + 2 ** bits[r]``. Tables that were outgrown are used again by their size.
    """

    def __init__(self) -> None:
        self._keys: NDArray[np.int32] = np.zeros(1 << 12, dtype=np.int32)
        self._values: NDArray[np.float32] = np.zeros(1 << 12, dtype=np.float32)
        # per row: offset, bits (-1: no table yet), used slots
        self._tables: NDArray[np.int64] = _no_tables(1024)
        # [0]: end of the pool in use; [1 + bits]: first free table of that size, -1 when there is none
        self._free: NDArray[np.int64] = np.full(1 + _CLASSES, -1, dtype=np.int64)
        self._free[0] = 0

    def add(self, rows: NDArray[np.int32], columns: NDArray[np.int32], weights: Float64s) -> None:
        """Add ``weights[k]`` to every pair (``rows[k]``, ``columns[k]``); negative rows or columns are left out."""
        self._reserve(int(max(rows.max(initial=0), columns.max(initial=0))))
        self._keys, self._values = _add(self._keys, self._values, self._tables, self._free, rows, columns, weights)

    def accumulate(self, rows: NDArray[np.int32], weights: Float64s, out: Float64s) -> None:
        """Add ``weights[k]`` times row ``rows[k]`` to ``out[1:]``; ``out[0]`` is scratch and left zero."""
        self._reserve(int(rows.max(initial=0)))
        _accumulate(self._keys, self._values, self._tables, rows, weights, out)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._keys.nbytes + self._values.nbytes + self._tables.nbytes

    def _reserve(self, row: int) -> None:
        if row >= len(self._tables):
            longer = _no_tables(max(2 * len(self._tables), row + 1))
            longer[: len(self._tables)] = self._tables
            self._tables = longer


def _no_tables(rows: int) -> NDArray[np.int64]:
    tables = np.zeros((rows, 3), dtype=np.int64)
    tables[:, 1] = -1
    return tables


@njit(cache=True, nogil=True)
def _slot(keys: NDArray[np.int32], offset: int, bits: int, key: int) -> int:
    """Return the slot that holds ``key``, or the empty one where it belongs."""
    mask = (1 << bits) - 1
    place = ((key * 2654435769) & 0xFFFFFFFF) >> (32 - bits)
    while keys[offset + place] != 0 and keys[offset + place] != key:
        place = (place + 1) & mask
    return offset + place


@njit(cache=True, nogil=True)
def _add(
    keys: NDArray[np.int32],
    values: NDArray[np.float32],
    tables: NDArray[np.int64],
    free: NDArray[np.int64],
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    for pair in range(len(rows)):
        row = rows[pair]
        key = columns[pair] + 1
        if row < 0 or key <= 0:
            continue
        bits = tables[row, 1]
        slot = -1
        if bits >= 0:
            slot = _slot(keys, tables[row, 0], bits, key)
            if keys[slot] == key:
                values[slot] += weights[pair]
                continue
        # at most three quarters of a table are used
        if bits < 0 or 4 * (tables[row, 2] + 1) > 3 << bits:
            keys, values = _enlarge(keys, values, tables, free, row)
            slot = _slot(keys, tables[row, 0], tables[row, 1], key)
        keys[slot] = key
        values[slot] = weights[pair]
        tables[row, 2] += 1
    return keys, values


@njit(cache=True, nogil=True)
def _enlarge(
    keys: NDArray[np.int32],
    values: NDArray[np.float32],
    tables: NDArray[np.int64],
    free: NDArray[np.int64],
    row: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Move the table of ``row`` to one of twice the size; return the pool, which may have been replaced."""
    old_offset = tables[row, 0]
    old_bits = tables[row, 1]
    bits = max(old_bits + 1, _SMALLEST_BITS)
    offset = free[1 + bits]
    if offset >= 0:
        # a free table keeps the offset of the next one of its size, plus one, in its first slot
        free[1 + bits] = keys[offset] - 1
        keys[offset] = 0
    else:
        offset = free[0]
        free[0] += 1 << bits
        if free[0] > len(keys):
            size = max(free[0], len(keys) + len(keys) // 2)
            longer_keys = np.zeros(size, dtype=np.int32)
            longer_values = np.zeros(size, dtype=np.float32)
            longer_keys[: len(keys)] = keys
            longer_values[: len(values)] = values
            keys, values = longer_keys, longer_values
    tables[row, 0] = offset
    tables[row, 1] = bits
    if old_bits >= 0:
        for slot in range(old_offset, old_offset + (1 << old_bits)):
            if keys[slot] != 0:
                new = _slot(keys, offset, bits, keys[slot])
                keys[new] = keys[slot]
                values[new] = values[slot]
        keys[old_offset : old_offset + (1 << old_bits)] = 0
        values[old_offset : old_offset + (1 << old_bits)] = 0
        keys[old_offset] = free[1 + old_bits] + 1
        free[1 + old_bits] = old_offset
    return keys, values


@njit(cache=True, nogil=True)
def _accumulate(
    keys: NDArray[np.int32],
    values: NDArray[np.float32],
    tables: NDArray[np.int64],
    rows: NDArray[np.int32],
    weights: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    for place in range(len(rows)):
        row = rows[place]
        if row < 0 or tables[row, 1] < 0:
            continue
        offset = tables[row, 0]
        weight = weights[place]
        # an empty slot adds its zero to the scratch cell: cheaper than a branch that the processor cannot predict
        for slot in range(offset, offset + (1 << tables[row, 1])):
            out[keys[slot]] += weight * values[slot]
