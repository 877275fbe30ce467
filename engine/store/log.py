"""The log of applied events in order of application: chunks by column, merged while small, trimmed at the front."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LogChunk", "LogPlan", "LogWriter", "decode_chunk", "encode_chunk", "erase"]

_VERSION = 1
_HEADER = 6
# a chunk with at least this many events is left as it is; smaller ones are merged when so many have gathered
_LARGE = 256
_SMALL_CHUNKS = 64
_COLUMNS = (np.int64, np.int32, np.int32, np.int64, np.uint16, np.float32, np.uint64)


class LogChunk(NamedTuple):
    """Consecutive events of the log; those of forgotten users are left out, so ``seqs`` may have gaps."""

    seqs: NDArray[np.int64]
    user_rows: NDArray[np.int32]
    item_rows: NDArray[np.int32]
    times_ms: NDArray[np.int64]
    types: NDArray[np.uint16]
    weights: NDArray[np.float32]
    hashes: NDArray[np.uint64]

    @classmethod
    def joined(cls, chunks: "Sequence[LogChunk]") -> "LogChunk":
        """Return the events of consecutive chunks as one."""
        if not chunks:
            return cls._make(np.empty(0, kind) for kind in _COLUMNS)
        return cls._make(map(np.concatenate, zip(*chunks, strict=True)))

    def part(self, start: int, stop: int | None) -> "LogChunk":
        """Return the events between two positions."""
        return LogChunk._make(column[start:stop] for column in self)

    def take(self, chosen: NDArray[np.bool_]) -> "LogChunk":
        """Return the chosen events."""
        return LogChunk._make(column[chosen] for column in self)


class LogPlan(NamedTuple):
    """The log's part of one commit: a value to put, keys to delete."""

    start: int | None
    value: bytes
    # chunks that went into the value, and chunks beyond the limit
    merged: list[int]
    stale: list[int]
    # small chunks at the end of the log after the commit
    small: list[LogChunk]


def encode_chunk(chunk: LogChunk) -> bytes:
    """Return the value of a chunk whose sequence numbers have no gaps; erased events carry user row -1."""
    typed, weighted, hashed = bool(chunk.types.any()), not np.isnan(chunk.weights).all(), bool(chunk.hashes.any())
    flags = typed | weighted << 1 | hashed << 2
    parts = [
        bytes((_VERSION, flags)),
        len(chunk.seqs).to_bytes(4, "little"),
        chunk.user_rows.tobytes(),
        chunk.item_rows.tobytes(),
        # the upper two bytes of a time are always zero
        np.ascontiguousarray(chunk.times_ms).view(np.uint8).reshape(-1, 8)[:, :6].tobytes(),
    ]
    if typed:
        parts.append(chunk.types.tobytes())
    if weighted:
        parts.append(chunk.weights.tobytes())
    if hashed:
        parts.append(chunk.hashes.tobytes())
    return b"".join(parts)


def decode_chunk(first_seq: int, value: bytes) -> LogChunk:
    """Read a chunk, erased events included; raises ``ValueError`` if it is malformed."""
    if len(value) < _HEADER or value[0] != _VERSION:
        raise ValueError("unknown version of a log chunk")
    flags, count = value[1], int.from_bytes(value[2:6], "little")
    widths = (4, 4, 6, 2 * (flags & 1), 4 * (flags >> 1 & 1), 8 * (flags >> 2 & 1))
    if len(value) != _HEADER + count * sum(widths):
        raise ValueError(f"a log chunk of {count} events has {len(value)} bytes")
    ends = np.cumsum([_HEADER, *(width * count for width in widths)]).tolist()

    def column(index: int, dtype: type[np.generic]) -> NDArray[np.generic]:
        return np.frombuffer(value, dtype, count, ends[index])

    times = np.zeros((count, 8), np.uint8)
    times[:, :6] = np.frombuffer(value, np.uint8, 6 * count, ends[2]).reshape(-1, 6)
    return LogChunk(
        seqs=np.arange(first_seq, first_seq + count, dtype=np.int64),
        user_rows=np.frombuffer(value, np.int32, count, ends[0]),
        item_rows=np.frombuffer(value, np.int32, count, ends[1]),
        times_ms=times.view(np.int64).reshape(-1),
        types=np.frombuffer(value, np.uint16, count, ends[3]) if widths[3] else np.zeros(count, np.uint16),
        weights=np.frombuffer(value, np.float32, count, ends[4]) if widths[4] else np.full(count, np.nan, np.float32),
        hashes=np.frombuffer(value, np.uint64, count, ends[5]) if widths[5] else np.zeros(count, np.uint64),
    )


def erase(chunk: LogChunk, user_rows: Sequence[int]) -> LogChunk | None:
    """Return the chunk with these users' events blanked, None if it has none."""
    gone = np.isin(chunk.user_rows, user_rows)
    if not gone.any():
        return None
    return chunk._replace(
        user_rows=np.where(gone, np.int32(-1), chunk.user_rows),
        item_rows=np.where(gone, np.int32(0), chunk.item_rows),
        times_ms=np.where(gone, np.int64(0), chunk.times_ms),
        types=np.where(gone, np.uint16(0), chunk.types),
        weights=np.where(gone, np.float32(np.nan), chunk.weights),
        hashes=np.where(gone, np.uint64(0), chunk.hashes),
    )


class LogWriter:
    """Plans the log's part of a commit and keeps the first sequence number of every chunk (bounded by the trimming)."""

    def __init__(self, limit: int, starts: Iterable[int]) -> None:
        self._limit = limit
        self.starts = deque(starts)
        self._small: list[LogChunk] = []

    def plan(self, chunk: LogChunk | None, next_seq: int) -> LogPlan:
        """Return what to write so that ``chunk`` is at the end and at least the newest ``limit`` events are kept."""
        start, value, merged = None, b"", []
        small = self._small
        if chunk is not None:
            small = [*small, chunk] if len(chunk.seqs) < _LARGE else []
            if len(small) >= _SMALL_CHUNKS or sum(len(part.seqs) for part in small) >= 2 * _LARGE:
                merged = [int(part.seqs[0]) for part in small[1:-1]]
                chunk = LogChunk.joined(small)
                small = []
            start, value = int(chunk.seqs[0]), encode_chunk(chunk)
        stale = self._stale(start, len(self.starts) - len(merged), next_seq - self._limit)
        return LogPlan(start, value, merged, stale, small)

    def commit(self, plan: LogPlan) -> None:
        """Note that the plan was written."""
        for _ in plan.merged:
            self.starts.pop()
        if plan.start is not None and (not self.starts or self.starts[-1] < plan.start):
            self.starts.append(plan.start)
        for _ in plan.stale:
            self.starts.popleft()
        self._small = [part for part in plan.small if part.seqs[0] >= self.starts[0]]

    def leave_small(self) -> None:
        """Leave the chunks written so far as they are, because their values were changed."""
        self._small = []

    def _stale(self, start: int | None, old: int, horizon: int) -> list[int]:
        """Return the chunks before the one that holds the event ``horizon``; ``old`` chunks stay unmerged."""
        stale: list[int] = []
        while len(stale) < old:
            after = self.starts[len(stale) + 1] if len(stale) + 1 < old else start
            # a merged chunk replaces the value of its first part, which therefore stays
            if after is None or after > horizon or after == self.starts[len(stale)]:
                break
            stale.append(self.starts[len(stale)])
        return stale
