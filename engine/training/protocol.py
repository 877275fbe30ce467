"""What the engine and the training program say to each other: one JSON object per line, each way.

The engine writes a `Request` to the program's standard input and reads `Reply` lines from its standard output: any
number with ``progress``, then one with ``report`` or ``error``. One request is answered before the next one is read.
The program ends when its standard input closes, whatever it is doing.
"""

import msgspec

from ..config import GateConfig, ModelConfig, RetrievalConfig, StoreConfig, TrainingConfig

__all__ = ["Reply", "Request", "TrainReport"]


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a training; also kept with a published version.

    ``verdict`` is ``first`` or ``published`` (there is a new version, ``number``), ``refused`` (the gate said no) or
    ``kept`` (there was too little to go by); ``reason`` says why in a sentence. ``ndcg_*`` are NDCG over the
    ``holdout`` events of ``users`` users that neither version was trained on; ``lower`` bounds the difference of
    candidate and live from below with ``confidence``, and must be above ``required``. ``fitted_events`` counts an event
    each time that it was learnt from, more often the greater the ``effort``; ``best_step`` of ``steps`` is the one
    whose weights were taken.
    """

    verdict: str
    reason: str
    number: int = 0
    parent: int = 0
    items: int = 0
    trained_events: int = 0
    cutoff_seq: int = -1
    newest_seq: int = -1
    holdout: int = 0
    users: int = 0
    ndcg_live: float | None = None
    ndcg_candidate: float | None = None
    ndcg_popularity: float | None = None
    difference: float | None = None
    lower: float | None = None
    required: float | None = None
    confidence: float | None = None
    steps: int = 0
    best_step: int = 0
    fitted_events: int = 0
    effort: float = 1.0
    loss: float | None = None
    validation_loss: float | None = None
    seed: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def published(self) -> bool:
        """Whether there is a new version."""
        return self.verdict in ("first", "published")


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
