"""Made-up streams and versions: what an engine has to do does not depend on what they mean."""

import time
from pathlib import Path

import numpy as np
import torch

from ...engine.config import Config
from ...engine.events import Event
from ...engine.model import StreamingModel
from ...engine.results import PROMOTED, TrainReport
from ...engine.versions import VersionStore

__all__ = ["made_events", "publish_random"]

_SPAN_MS = 30 * 86_400_000


def made_events(count: int, users: int, items: int, seed: int, *, span_ms: int = _SPAN_MS) -> list[Event]:
    """Make events over the last ``span_ms``, 30 days: users by 1 / rank, items by 1 / rank, every item once."""
    rng = np.random.default_rng(seed)
    who = np.minimum(users ** rng.random(count), users - 1).astype(np.int64)
    what = np.minimum(items ** rng.random(count), items - 1).astype(np.int64)
    what[: min(items, count)] = np.arange(min(items, count))
    end_ms = time.time_ns() // 1_000_000
    return [
        Event(f"user-{user}", f"item-{item}", end_ms - span_ms + place * span_ms // count)
        for place, (user, item) in enumerate(zip(who.tolist(), what.tolist(), strict=True))
    ]


def publish_random(folder: Path, items: int, seed: int, *, cutoff_seq: int = 0) -> None:
    """Publish a version of random weights that knows ``item-0`` and so on, as if trained up to event ``cutoff_seq``."""
    torch.manual_seed(seed)
    report = TrainReport(verdict=PROMOTED, reason="random weights, for a benchmark")
    versions = VersionStore(folder / "models")
    with versions.lock():
        versions.publish(
            StreamingModel(Config().model, items),
            [f"item-{item}" for item in range(items)],
            parent=0,
            cutoff_seq=cutoff_seq,
            store_id="",
            report=lambda _: report,
            guard=lambda: None,
        )
