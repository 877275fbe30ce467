"""Input of training: the log by user, cut into windows as long as states get, and their batches."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ...kernels.arrays import Bools, Int64s
from ..states import anchor
from ..store import LogChunk

__all__ = ["PackedWindows", "UserLog", "Windows", "all_windows", "batches", "last_windows", "pack"]


class UserLog(NamedTuple):
    """Applied events in the order (user, time, arrival). Every event is a row of the four columns.

    ``starts`` (users + 1) bounds the rows of each user; users are renumbered without gaps; ``items`` are store
    rows.
    """

    users: Int64s
    items: Int64s
    times_ms: Int64s
    seqs: Int64s
    starts: Int64s

    @classmethod
    def of(cls, users: Int64s, items: Int64s, times_ms: Int64s, seqs: Int64s) -> "UserLog":
        """Sort events, given in any order, by (user, time, sequence number)."""
        order = np.lexsort((seqs, times_ms, users))
        users = users[order]
        first = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(users) else np.empty(0, np.int64)
        starts = np.append(first, len(users)).astype(np.int64)
        dense = np.repeat(np.arange(len(first), dtype=np.int64), np.diff(starts))
        return cls(dense, items[order], times_ms[order], seqs[order], starts)

    @classmethod
    def read(cls, chunks: Iterable[LogChunk], until_seq: int | None = None) -> "UserLog":
        """Collect the log's chunks, up to and including the event ``until_seq``; None means all of it."""
        parts = [(chunk.user_rows, chunk.item_rows, chunk.times_ms, chunk.seqs) for chunk in chunks]
        users, items, times_ms, seqs = (
            np.concatenate([np.asarray(part[column], np.int64) for part in parts] or [np.empty(0, np.int64)])
            for column in range(4)
        )
        log = cls.of(users, items, times_ms, seqs)
        return log if until_seq is None else log.until(until_seq)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.items)

    def until(self, seq: int) -> "UserLog":
        """Return the log as it was when ``seq`` was its newest event."""
        kept = self.seqs <= seq
        return UserLog.of(self.users[kept], self.items[kept], self.times_ms[kept], self.seqs[kept])

    def positions(self) -> Int64s:
        """Return, for every event, how many events of its user come before it in the log."""
        return np.arange(len(self), dtype=np.int64) - self.starts[self.users]


class Windows(NamedTuple):
    """Ranges of rows of a `UserLog`, each within one user."""

    starts: Int64s
    stops: Int64s

    @property
    def lengths(self) -> Int64s:
        """Return how many events each window has."""
        return self.stops - self.starts

    def take(self, chosen: "Bools | Int64s") -> "Windows":
        """Return the chosen windows."""
        return Windows(self.starts[chosen], self.stops[chosen])

    def join(self, other: "Windows") -> "Windows":
        """Return the windows of both."""
        return Windows(np.concatenate((self.starts, other.starts)), np.concatenate((self.stops, other.stops)))


def all_windows(log: UserLog, interval: int) -> Windows:
    """Return the windows that begin at multiples of ``interval`` and hold up to twice as many events, as states do."""
    counts = np.diff(log.starts)
    # the last window of a user is the one that its present state covers
    per_user = 1 + anchor(counts, interval) // interval
    user = np.repeat(np.arange(len(counts)), per_user)
    index = np.arange(len(user)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    starts = log.starts[:-1][user] + interval * index
    return Windows(starts, np.minimum(starts + 2 * interval, log.starts[1:][user]))


def last_windows(log: UserLog, since_seq: int, interval: int) -> Windows:
    """Return the window of the present state of every user with an event after ``since_seq``."""
    users = np.unique(log.users[log.seqs > since_seq])
    counts = np.diff(log.starts)[users]
    starts = log.starts[:-1][users] + anchor(counts, interval)
    return Windows(starts, log.starts[1:][users])


def batches(windows: Windows, tokens: int, rng: np.random.Generator, *, padded: bool = False) -> Iterator[Windows]:
    """Yield all windows once in random order; at most ``tokens`` events at a time, unless one window alone has more.

    ``padded`` is for models that pad their rows: padding counts, and windows of similar length go together.
    """
    lengths = windows.lengths
    # a few events of noise, so that the same windows do not meet again in every epoch
    keys = lengths + 8 * rng.random(len(lengths)) if padded else rng.random(len(lengths))
    order = np.argsort(keys, kind="stable")
    groups: list[Int64s] = []
    begin = longest = total = 0
    for end, length in enumerate(lengths[order].tolist()):
        longest, total = max(longest, length), total + length
        if end > begin and (longest * (end + 1 - begin) if padded else total) > tokens:
            groups.append(order[begin:end])
            begin, longest, total = end, length, length
    groups.append(order[begin:])
    for index in rng.permutation(len(groups)).tolist():
        if len(groups[index]):
            yield windows.take(groups[index])


class PackedWindows(NamedTuple):
    """Windows one after another, T events in all.

    ``items`` (T) version rows, ``times_ms`` (T), ``offsets`` (windows + 1) from 0 to T, ``rows`` (T) of the log.
    """

    items: Int64s
    times_ms: Int64s
    offsets: Int64s
    rows: Int64s

    @property
    def windows(self) -> Int64s:
        """Return the window of each event, counted from 0."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def parts(self, count: int) -> list["PackedWindows"]:
        """Cut into at most ``count`` batches of whole windows with about as many events each."""
        aims = len(self.items) * np.arange(1, count) / count
        cuts = np.unique([0, *np.searchsorted(self.offsets, aims), len(self.offsets) - 1])
        return [self._part(first, last) for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]

    def _part(self, first: int, last: int) -> "PackedWindows":
        inside = slice(self.offsets[first], self.offsets[last])
        offsets = self.offsets[first : last + 1] - self.offsets[first]
        return PackedWindows(self.items[inside], self.times_ms[inside], offsets, self.rows[inside])


def pack(log: UserLog, windows: Windows, version_rows: Int64s, rng: np.random.Generator | None = None) -> PackedWindows:
    """Lay windows, none of them empty, one after another.

    ``version_rows`` maps store rows to rows of the model. With ``rng`` events of one user at one time are permuted:
    they have no order among themselves, and a model that sees only one overfits it.
    """
    offsets = np.append(0, np.cumsum(windows.lengths))
    window = np.repeat(np.arange(len(windows.starts)), windows.lengths)
    rows = np.arange(offsets[-1]) + (windows.starts - offsets[:-1])[window]
    times_ms = log.times_ms[rows]
    if rng is not None:
        rows = rows[np.lexsort((rng.random(len(rows)), times_ms, window))]
    return PackedWindows(version_rows[log.items[rows]], times_ms, offsets, rows)
