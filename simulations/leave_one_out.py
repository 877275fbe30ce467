"""Leave one out: each user's last event is the test, the one before it the validation, the rest is learnt.

Users and items with fewer than five events are removed until none is left. All items are ranked, those of the user's
history too (masked figures, without them, stand beside); rank = 1 + number of other items scoring at least as high.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.model import SequenceModel
from ..engine.training import UserLog, Windows, at_events, batches, pack, vectors_before
from ..kernels.arrays import Float64s, Int64s
from .datasets import Stream

__all__ = ["Ranks", "Split", "figures", "rank_events", "rank_scores", "split"]

_CORE = 5
_BATCH_EVENTS = 16_384
# scores of this many users times items at a time
_BLOCK = 8 << 20


class Split(NamedTuple):
    """Events by user in their order, with items numbered 0 .. ``items`` - 1; ``codes`` (items) are the stream's.

    ``train_stops`` (users) are the rows where training ends; the validation event of a user is there, the test event
    one further. ``order`` (events) is the place of each row in the stream.
    """

    log: UserLog
    items: int
    order: Int64s
    codes: Int64s

    @property
    def train_stops(self) -> Int64s:
        """Return, for every user, the row of the validation event."""
        return self.log.starts[1:] - 2

    @property
    def learnt(self) -> NDArray[np.bool_]:
        """Return, for every row, whether it may be learnt."""
        return np.arange(len(self.log)) < self.train_stops[self.log.users]

    def train_windows(self, length: int, rng: np.random.Generator | None = None) -> Windows:
        """Cut what may be learnt into windows of at most ``length`` events, at random places with ``rng``."""
        first, stop = self.log.starts[:-1], self.train_stops
        size = stop - first
        phase = np.zeros(len(size), np.int64) if rng is None else rng.integers(0, length, len(size))
        # the last window of a user ends at its last event, moved by the phase if there is more than one
        phase = np.where(size > length, phase, 0)
        count = 1 + (size - phase + length - 1) // length
        user = np.repeat(np.arange(len(size)), count)
        place = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
        end = (stop - phase)[user] - length * (place - 1)
        starts = np.maximum(first[user], end - length)
        stops = np.minimum(stop[user], end)
        return Windows(starts, stops).take(stops > starts)

    def prefix_windows(self, length: int) -> Windows:
        """Return a window for every event that may be learnt and has one before it: that event and those before."""
        first = self.log.starts[:-1]
        each = np.concatenate([np.arange(begin + 1, end) for begin, end in zip(first, self.train_stops, strict=True)])
        return Windows(np.maximum(first[self.log.users[each]], each - length), each + 1)


class Ranks(NamedTuple):
    """Ranks (events) among all items, and among those that are not in the user's history."""

    plain: Float64s
    masked: Float64s


def split(stream: Stream) -> Split:
    """Filter and order a stream. Raises ``ValueError`` if nothing is left."""
    kept: Int64s = np.arange(len(stream), dtype=np.int64)
    while True:
        users, items = stream.users[kept], stream.items[kept]
        enough = (np.bincount(users)[users] >= _CORE) & (np.bincount(items)[items] >= _CORE)
        if enough.all():
            break
        kept = kept[enough]
        if not len(kept):
            raise ValueError(f"{stream.name}: no user has {_CORE} events with items that have {_CORE} events")
    codes, rows = np.unique(stream.items[kept], return_inverse=True)
    log = UserLog.of(stream.users[kept].astype(np.int64), rows.astype(np.int64), stream.time_ms[kept], kept)
    return Split(log, len(codes), log.seqs, codes.astype(np.int64))


def rank_events(model: SequenceModel, log: UserLog, events: Int64s, length: int, *, query_time: bool = False) -> Ranks:
    """Rank the events (rows of the log), each given the ``length`` events of its user before it.

    ``query_time`` modulates the user's vector for the time of the event. Leaves the model in evaluation mode.
    """
    windows = Windows(np.maximum(log.starts[log.users[events]], events - length), events + 1)
    rows = np.arange(model.items)
    number = {event: place for place, event in enumerate(events.tolist())}
    plain, masked = np.empty(len(events)), np.empty(len(events))
    model.eval()
    with torch.no_grad():
        table = model.item_table()
        for part in batches(windows, _BATCH_EVENTS, np.random.default_rng(0), padded=not model.streams):
            batch = pack(log, part, rows)
            last = torch.from_numpy(batch.offsets[1:] - 1).to(table.device)
            hidden = vectors_before(model, batch)[last]
            if query_time:
                hidden = at_events(model, batch, hidden, last)
            targets = part.stops - 1
            for chosen in np.array_split(np.arange(len(targets)), 1 + len(targets) * model.items // _BLOCK):
                scores = (hidden[torch.from_numpy(chosen).to(table.device)] @ table.T).cpu().numpy()
                places = [number[target] for target in targets[chosen].tolist()]
                found = rank_scores(scores, log, targets[chosen])
                plain[places], masked[places] = found.plain, found.masked
    return Ranks(plain, masked)


def rank_scores(scores: NDArray[np.floating], log: UserLog, events: Int64s) -> Ranks:
    """Rank the items of ``events`` (e) in ``scores`` (e, V), which are changed; ties count against."""
    each, wanted = np.arange(len(events)), log.items[events]
    true = scores[each, wanted].copy()
    plain = (scores >= true[:, None]).sum(1).astype(np.float64)
    first = log.starts[log.users[events]]
    for place in range(len(events)):
        scores[place, log.items[first[place] : events[place]]] = -np.inf
    # an item that the user had before stays a candidate where it is the true one
    scores[each, wanted] = true
    return Ranks(plain, (scores >= true[:, None]).sum(1).astype(np.float64))


def figures(ranks: Float64s) -> dict[str, float]:
    """Return the means of the usual figures of single true items."""
    ten = ranks <= 10
    return {
        "hr@10": round(float(ten.mean()), 5),
        "hr@20": round(float((ranks <= 20).mean()), 5),
        "ndcg@10": round(float((ten / np.log2(1 + ranks)).mean()), 5),
        "mrr@10": round(float((ten / ranks).mean()), 5),
    }
