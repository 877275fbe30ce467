"""What training reads: the log by user, cut into windows as long as states get, and their batches."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..store import LogChunk

__all__ = ["Cells", "UserLog", "Windows", "all_windows", "batches", "cells", "last_windows"]

Ints = NDArray[np.int64]


class UserLog(NamedTuple):
    """Applied events in the order (user, time, arrival). Every event is a row of the four columns.

    ``starts`` (users + 1) bounds the rows of each user; users are numbered anew, without gaps; ``items`` are store
    rows.
    """

    users: Ints
    items: Ints
    times_ms: Ints
    seqs: Ints
    starts: Ints

    @classmethod
    def of(cls, users: Ints, items: Ints, times_ms: Ints, seqs: Ints) -> "UserLog":
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

    def positions(self) -> Ints:
        """Return, for every event, how many events of its user come before it in the log."""
        return np.arange(len(self), dtype=np.int64) - self.starts[self.users]


class Windows(NamedTuple):
    """Ranges of rows of a `UserLog`, each within one user."""

    starts: Ints
    stops: Ints

    @property
    def lengths(self) -> Ints:
        """Return how many events each window has."""
        return self.stops - self.starts

    def take(self, chosen: "NDArray[np.bool_] | Ints") -> "Windows":
        """Return the chosen windows."""
        return Windows(self.starts[chosen], self.stops[chosen])

    def join(self, other: "Windows") -> "Windows":
        """Return the windows of both."""
        return Windows(np.concatenate((self.starts, other.starts)), np.concatenate((self.stops, other.stops)))


def all_windows(log: UserLog, anchor: int) -> Windows:
    """Return the windows that begin at multiples of ``anchor`` and hold up to twice as many events, as states do."""
    counts = np.diff(log.starts)
    # the last window of a user with n events is the one that its present state covers
    per_user = np.maximum(1, counts // anchor)
    user = np.repeat(np.arange(len(counts)), per_user)
    index = np.arange(len(user)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    starts = log.starts[:-1][user] + anchor * index
    return Windows(starts, np.minimum(starts + 2 * anchor, log.starts[1:][user]))


def last_windows(log: UserLog, since_seq: int, anchor: int) -> Windows:
    """Return the window of the present state of every user with an event after ``since_seq``."""
    users = np.unique(log.users[log.seqs > since_seq])
    counts = np.diff(log.starts)[users]
    starts = log.starts[:-1][users] + np.maximum(0, anchor * (counts // anchor - 1))
    return Windows(starts, log.starts[1:][users])


def batches(windows: Windows, tokens: int, rng: np.random.Generator) -> Iterator[Windows]:
    """Yield all windows once in random order, those of similar length together; at most ``tokens`` events, padding
    included, unless one window alone has more."""
    # a few events of noise, so that the same windows do not meet again in every epoch
    order = np.argsort(windows.lengths + 8 * rng.random(len(windows.starts)), kind="stable")
    groups: list[Ints] = []
    begin = 0
    longest = 0
    for end, length in enumerate(windows.lengths[order].tolist()):
        longest = max(longest, length)
        if end > begin and longest * (end + 1 - begin) > tokens:
            groups.append(order[begin:end])
            begin, longest = end, length
    groups.append(order[begin:])
    for index in rng.permutation(len(groups)).tolist():
        if len(groups[index]):
            yield windows.take(groups[index])


class Cells(NamedTuple):
    """A padded batch: version rows, times, lengths; ``rows`` are the log's rows, -1 where there is padding."""

    items: torch.Tensor
    times_ms: torch.Tensor
    lengths: torch.Tensor
    rows: Ints


def cells(log: UserLog, windows: Windows, version_rows: Ints, rng: np.random.Generator | None = None) -> Cells:
    """Lay windows out as a batch (b, l).

    ``version_rows`` maps store rows to rows of the model. With ``rng`` events of one user at one time are permuted:
    they have no order among themselves, and a model that sees only one learns it by heart.
    """
    lengths = windows.lengths
    width = int(lengths.max())
    column = np.arange(width)
    inside = column < lengths[:, None]
    rows = np.where(inside, windows.starts[:, None] + column, -1)
    if rng is not None:
        # padding sorts behind everything: its time is later
        times = np.where(inside, log.times_ms[rows], np.iinfo(np.int64).max)
        order = np.lexsort((rng.random(times.shape), times), axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    items = np.where(inside, version_rows[log.items[rows]], 0)
    last = np.take_along_axis(rows, lengths[:, None] - 1, axis=1)
    # padding repeats the last time, so that it adds no gaps
    times_ms = np.where(inside, log.times_ms[rows], log.times_ms[last])
    return Cells(torch.from_numpy(items), torch.from_numpy(times_ms), torch.from_numpy(lengths), rows)
