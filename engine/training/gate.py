"""The test that a candidate must pass on events that neither it nor the parent version was trained on."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ...kernels.arrays import Float64s, Int64s
from ..config import GateConfig
from ..model import SequenceModel
from ..ranking import ndcgs, ranks
from ..states import anchor
from .loss import at_events, vectors_before
from .windows import UserLog, Windows, batches, pack

__all__ = ["Interval", "chance_ndcg", "event_ranks", "judge", "popularity_ndcg", "user_bootstrap"]

_BATCH_EVENTS = 4096
# scores of this many events times items at a time
_BLOCK = 4 << 20


class Interval(NamedTuple):
    """A difference with the lower bound of its one-sided interval."""

    difference: float
    lower: float


def user_bootstrap(difference: Float64s, users: Int64s, config: GateConfig, rng: np.random.Generator) -> Interval:
    """Mean of paired differences per event with its lower bound, resampling whole users with all their events.

    Events of one user go together: within a session they rise and fall as one, so resampling single events would
    claim more certainty than there is.
    """
    _, owner = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(owner, difference), np.bincount(owner)
    draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=config.resamples)
    means = (draws @ sums) / (draws @ counts)
    return Interval(float(difference.mean()), float(np.quantile(means, 1 - config.confidence)))


def judge(
    parent: Float64s, candidate: Float64s, users: Int64s, config: GateConfig, rng: np.random.Generator
) -> tuple[bool, Interval]:
    """Whether the candidate may serve: the lower bound of its NDCG's difference is above the margin of the parent's."""
    interval = user_bootstrap(candidate - parent, users, config, rng)
    return interval.lower > config.margin * float(parent.mean()), interval


def chance_ndcg(candidates: int) -> float:
    """Return the expected NDCG of a random order of so many items."""
    return float(np.mean(ndcgs(np.arange(1.0, candidates + 1), np.inf)))


def event_ranks(
    model: SequenceModel,
    log: UserLog,
    targets: Int64s,
    version_rows: Int64s,
    interval: int,
    *,
    exclude_own: bool = True,
) -> Float64s:
    """Rank the events ``targets`` (rows of the log, ascending) among all items of the model, as serving would.

    The user's state covers the events from its anchor (``interval`` = A) up to the target; ties count against; an item
    that the model does not know, or that the user had before (with ``exclude_own``), is a miss: infinity.
    """
    result = np.full(len(targets), np.inf)
    windows, owner = _target_windows(log, targets, interval)
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(windows.starts) + 1))
    numbers = {start: number for number, start in enumerate(windows.starts.tolist())}
    table = model.eval().item_table().detach()
    with torch.no_grad():
        for part in batches(windows, _BATCH_EVENTS, np.random.default_rng(0), padded=not model.streams):
            batch = pack(log, part, version_rows)
            hidden = at_events(model, batch, vectors_before(model, batch))
            for start, offset in zip(part.starts.tolist(), batch.offsets.tolist(), strict=False):
                number = numbers[start]
                mine = order[bounds[number] : bounds[number + 1]]
                for chosen in np.array_split(mine, 1 + len(mine) * len(table) // _BLOCK):
                    rows = torch.from_numpy(offset + targets[chosen] - start).to(table.device)
                    scores = (hidden[rows] @ table.T).cpu().numpy()
                    result[chosen] = _rank(scores, log, targets[chosen], version_rows, exclude_own)
    return result


def popularity_ndcg(log: UserLog, targets: Int64s, until_seq: int, *, exclude_own: bool = True) -> float:
    """Return the NDCG of ranking by how often an item came up to ``until_seq``."""
    items = int(log.items.max()) + 1
    counts = np.bincount(log.items[log.seqs <= until_seq], minlength=items).astype(np.float64)
    rows = np.arange(items)
    size = max(1, _BLOCK // items)
    parts = [
        _rank(np.tile(counts, (len(part), 1)), log, part, rows, exclude_own)
        for part in np.split(targets, range(size, len(targets), size))
    ]
    return float(ndcgs(np.concatenate(parts), np.inf).mean())


def _target_windows(log: UserLog, targets: Int64s, interval: int) -> tuple[Windows, Int64s]:
    """Return the windows that the states before the targets cover, extended to the last of them, and each one's."""
    first = log.starts[log.users[targets]]
    position = targets - first
    starts = first + anchor(position, interval)
    begins, owner = np.unique(starts, return_inverse=True)
    stops = np.zeros(len(begins), np.int64)
    np.maximum.at(stops, owner, targets + 1)
    return Windows(begins, stops), owner


def _rank(
    scores: NDArray[np.floating], log: UserLog, targets: Int64s, version_rows: Int64s, exclude_own: bool
) -> Float64s:
    wanted = version_rows[log.items[targets]]
    known = wanted < scores.shape[1]
    each = np.arange(len(targets))
    true = scores[each, np.where(known, wanted, 0)].copy()
    if exclude_own:
        index, row = _spans(log.starts[log.users[targets]], targets)
        own = version_rows[log.items[row]]
        inside = own < scores.shape[1]
        index, own = index[inside], own[inside]
        known[index[own == wanted[index]]] = False
        scores[index, own] = -np.inf
    return np.where(known, ranks(true, scores), np.inf)


def _spans(first: Int64s, last: Int64s) -> tuple[Int64s, Int64s]:
    """Return the pairs (i, j) with first[i] <= j < last[i], ordered by i and then j."""
    count = np.maximum(0, last - first)
    index = np.repeat(np.arange(len(count), dtype=np.int64), count)
    offset = np.arange(len(index), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    return index, first[index] + offset
