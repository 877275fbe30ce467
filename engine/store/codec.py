"""The bytes of a user's history: a base block and a small tail block, little-endian, by column.

A block holds events in their order::

    count u16 | widths u16 | first time 6 bytes | items | times - first time | types | weights f32 | hashes u64

Each integer column has the smallest width that holds it; types, weights and hashes are absent where no event of
the block has one. A base value is ``version u8 | block``, a tail value is
``version u8 | flags u8 | partition i32 | n 6 bytes | base count u16 | block``.
"""

from typing import Any

import numpy as np
from numba import njit

from ...kernels.jit import jit

__all__ = [
    "BASE_HEADER",
    "INNER",
    "RECORD_VERSION",
    "SEEN",
    "TAIL_HEADER",
    "base_count",
    "counter",
    "decode",
    "encode",
    "varints",
    "zigzags",
]

RECORD_VERSION = 1
# flag of a tail value: the user has a seen record
SEEN = 1
TAIL_HEADER = 14
BASE_HEADER = 1
# for functions that only kernels call: without the wrappers for Python they compile faster
INNER: dict[str, Any] = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_BLOCK_HEADER = 10
_EVENT_BYTES = 24


def base_count(tail: bytes) -> int:
    """Return how many events the base block beside this tail value holds; 0 means that there is no base block."""
    return int.from_bytes(tail[12:14], "little")


def counter(tail: bytes) -> int:
    """Return the counter ``n`` of the user of this tail value."""
    return int.from_bytes(tail[6:12], "little")


@njit(**INNER)
def _put(buffer, at, value, width):  # type: ignore[no-untyped-def]
    for _ in range(width):
        buffer[at] = value & 255
        value >>= 8
        at += 1
    return at


@njit(**INNER)
def _get(buffer, at, width):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for i in range(width):
        value |= np.int64(buffer[at + i]) << (8 * i)
    return value


@njit(**INNER)
def _width(value):  # type: ignore[no-untyped-def]
    width = 0
    while value > 0:
        value >>= 8
        width += 1
    return width


@njit(**INNER)
def _put_block(buffer, at, items, times, types, weight_bits, hashes, start, stop):  # type: ignore[no-untyped-def]
    top_item, top_type = np.int64(0), np.int64(0)
    weighted, hashed = 0, 0
    for i in range(start, stop):
        top_item = max(top_item, np.int64(items[i]))
        top_type = max(top_type, np.int64(types[i]))
        # every nan has all exponent bits set and a fraction; the store keeps only finite weights or nan
        if (weight_bits[i] & np.uint32(0x7F800000)) != np.uint32(0x7F800000):
            weighted = 1
        if hashes[i] != 0:
            hashed = 1
    first = times[start] if stop > start else np.int64(0)
    item_width, type_width = _width(top_item), _width(top_type)
    time_width = _width(times[stop - 1] - first) if stop > start else 0
    at = _put(buffer, at, stop - start, 2)
    at = _put(buffer, at, item_width | time_width << 3 | type_width << 6 | weighted << 8 | hashed << 9, 2)
    at = _put(buffer, at, first, 6)
    for i in range(start, stop):
        at = _put(buffer, at, np.int64(items[i]), item_width)
    for i in range(start, stop):
        at = _put(buffer, at, times[i] - first, time_width)
    for i in range(start, stop):
        at = _put(buffer, at, np.int64(types[i]), type_width)
    if weighted:
        for i in range(start, stop):
            at = _put(buffer, at, np.int64(weight_bits[i]), 4)
    if hashed:
        for i in range(start, stop):
            at = _put(buffer, at, np.int64(hashes[i]), 8)
    return at


@jit
def encode(users, rewrites, items, times, types, weights, hashes, lengths, tails, counts, partitions, flags):  # type: ignore[no-untyped-def]
    """Pack the values of the slots ``users`` into one buffer.

    Returns (buffer, ends): user i's tail value is ``buffer[ends[2 i - 1] : ends[2 i]]`` (0 for the first start), its
    base value, empty unless ``rewrites[i]``, follows to ``ends[2 i + 1]``.
    """
    room = 0
    for i in range(len(users)):
        slot = users[i]
        events = lengths[slot] if rewrites[i] else tails[slot]
        room += events * _EVENT_BYTES + TAIL_HEADER + BASE_HEADER + 2 * _BLOCK_HEADER
    buffer = np.empty(room, np.uint8)
    ends = np.empty(2 * len(users), np.int64)
    at = 0
    for i in range(len(users)):
        slot = users[i]
        length, tail = np.int64(lengths[slot]), np.int64(tails[slot])
        at = _put(buffer, at, RECORD_VERSION, 1)
        at = _put(buffer, at, np.int64(flags[slot]), 1)
        at = _put(buffer, at, np.int64(partitions[slot]), 4)
        at = _put(buffer, at, counts[slot], 6)
        at = _put(buffer, at, length - tail, 2)
        row = (items[slot], times[slot], types[slot], weights[slot].view(np.uint32), hashes[slot])
        at = _put_block(buffer, at, row[0], row[1], row[2], row[3], row[4], length - tail, length)
        ends[2 * i] = at
        if rewrites[i]:
            at = _put(buffer, at, RECORD_VERSION, 1)
            at = _put_block(buffer, at, row[0], row[1], row[2], row[3], row[4], 0, length - tail)
        ends[2 * i + 1] = at
    return buffer[:at], ends


@njit(**INNER)
def _get_block(buffer, at, end, items, times, types, weight_bits, hashes, length):  # type: ignore[no-untyped-def]
    """Append the block at ``buffer[at:end]`` behind ``length`` events; returns the new length, -1 if malformed."""
    if end - at < _BLOCK_HEADER:
        return -1
    count = _get(buffer, at, 2)
    code = _get(buffer, at + 2, 2)
    first = _get(buffer, at + 4, 6)
    item_width, time_width, type_width = code & 7, code >> 3 & 7, code >> 6 & 3
    weighted, hashed = code >> 8 & 1, code >> 9 & 1
    size = count * (item_width + time_width + type_width + 4 * weighted + 8 * hashed)
    if at + _BLOCK_HEADER + size != end or length + count > len(items) or item_width > 4 or time_width > 6:
        return -1
    at += _BLOCK_HEADER
    for i in range(length, length + count):
        items[i] = _get(buffer, at, item_width)
        at += item_width
    for i in range(length, length + count):
        times[i] = first + _get(buffer, at, time_width)
        at += time_width
    for i in range(length, length + count):
        types[i] = _get(buffer, at, type_width)
        at += type_width
    for i in range(length, length + count):
        weight_bits[i] = _get(buffer, at, 4) if weighted else 0x7FC00000
        at += 4 * weighted
    for i in range(length, length + count):
        hashes[i] = _get(buffer, at, 8) if hashed else 0
        at += 8 * hashed
    return length + count


@jit
def decode(buffer, ends, users, items, times, types, weights, hashes, lengths, tails, counts, partitions, flags):  # type: ignore[no-untyped-def]
    """Unpack values laid out as by ``encode`` (base empty where there is none) into the slots ``users``.

    Returns -1, or the index of the first user whose record is malformed.
    """
    for i in range(len(users)):
        slot = users[i]
        start = ends[2 * i - 1] if i else 0
        middle, end = ends[2 * i], ends[2 * i + 1]
        if middle - start < TAIL_HEADER or buffer[start] != RECORD_VERSION:
            return i
        flags[slot] = buffer[start + 1]
        partitions[slot] = _get(buffer, start + 2, 4)
        counts[slot] = _get(buffer, start + 6, 6)
        base = _get(buffer, start + 12, 2)
        row = (items[slot], times[slot], types[slot], weights[slot].view(np.uint32), hashes[slot])
        length = 0
        if base:
            if end - middle < BASE_HEADER or buffer[middle] != RECORD_VERSION:
                return i
            length = _get_block(buffer, middle + BASE_HEADER, end, row[0], row[1], row[2], row[3], row[4], 0)
            if length != base:
                return i
        lengths[slot] = _get_block(buffer, start + TAIL_HEADER, middle, row[0], row[1], row[2], row[3], row[4], length)
        if lengths[slot] < 0:
            lengths[slot] = 0
            return i
        tails[slot] = lengths[slot] - length
    return -1


@jit
def zigzags(values):  # type: ignore[no-untyped-def]
    """Pack int32 values as zigzag varints of their differences."""
    buffer = np.empty(5 * len(values), np.uint8)
    at, last = 0, np.int64(0)
    for value in values:
        step = np.int64(value) - last
        last = np.int64(value)
        code = (step << 1) ^ (step >> 63)
        while code > 127:
            buffer[at] = code & 127 | 128
            code >>= 7
            at += 1
        buffer[at] = code
        at += 1
    return buffer[:at]


@jit
def varints(buffer):  # type: ignore[no-untyped-def]
    """Unpack ``zigzags`` into int32 values."""
    values = np.empty(len(buffer), np.int32)
    count, last, code, shift = 0, np.int64(0), np.int64(0), 0
    for byte in buffer:
        code |= np.int64(byte & 127) << shift
        shift += 7
        if byte < 128:
            last += (code >> 1) ^ -(code & 1)
            values[count] = last
            count += 1
            code, shift = np.int64(0), 0
    return values[:count]
