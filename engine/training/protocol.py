"""Protocol between the engine and the training program: one JSON object per line, each way.

The engine writes a `Request` to the program's standard input and reads `Reply` lines from its standard output: any
number with ``progress``, then one with ``report`` or ``error``. One request is answered before the next one is read.
The program ends when its standard input closes, also amid a training.
"""

import msgspec

from ..config import GateConfig, ModelConfig, RetrievalConfig, StoreConfig, TrainingConfig
from ..results import TrainReport

__all__ = ["Reply", "Request"]


class Request(msgspec.Struct, frozen=True):
    """Train on the log up to and including the event ``until_seq`` (None: all of it); publish only at this epoch.

    ``effort`` is that of `rounds.Round`.
    """

    id: int
    epoch: int
    until_seq: int | None
    store: StoreConfig
    model: ModelConfig
    training: TrainingConfig
    gate: GateConfig
    retrieval: RetrievalConfig
    effort: float = 1.0


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the three, and the request that it answers."""

    id: int
    progress: float | None = None
    report: TrainReport | None = None
    error: str | None = None
