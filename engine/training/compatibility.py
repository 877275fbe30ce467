"""Compatibility of versions: recall of the next version's items by states of the one before."""

import numpy as np
import torch
from numpy.typing import NDArray

from ..model import SequenceModel
from .windows import UserLog, Windows, batches, pack

__all__ = ["cross_version_recall"]

_BATCH_EVENTS = 4_096


def cross_version_recall(
    old: SequenceModel,
    new: SequenceModel,
    log: UserLog,
    windows: Windows,
    version_rows: NDArray[np.int64],
    *,
    k: int = 10,
) -> float:
    """Return the recall of the ``k`` best items that user vectors of ``old`` find among the item vectors of ``new``.

    It is measured against the ``k`` best that the user vectors of ``new`` find, after the last event of each of the
    ``windows``, among the items that both know: the rows of ``old`` are the first ones of ``new``. ``version_rows``
    maps store rows to rows of ``new``.
    """
    hits = 0.0
    table = new.eval().item_table().detach()[: old.items].T
    old.eval()
    with torch.no_grad():
        for part in batches(windows, _BATCH_EVENTS, np.random.default_rng(0), padded=not new.streams):
            batch = pack(log, part, version_rows)
            last = torch.from_numpy(batch.offsets[1:] + np.arange(len(batch.offsets) - 1))
            wanted, found = (
                _best(model, batch.items, batch.times_ms, batch.offsets, last, table, k) for model in (new, old)
            )
            hits += float((wanted[:, :, None] == found[:, None, :]).any(2).float().mean(1).sum())
    return hits / len(windows.starts)


def _best(
    model: SequenceModel,
    items: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    offsets: NDArray[np.int64],
    last: torch.Tensor,
    table: torch.Tensor,
    k: int,
) -> torch.Tensor:
    known = torch.from_numpy(np.minimum(items, model.items)).to(table.device)
    vectors = model.encode(known, torch.from_numpy(times_ms), torch.from_numpy(offsets))[last.to(table.device)]
    return (vectors @ table).topk(min(k, table.shape[1]), dim=1).indices
