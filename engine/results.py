"""What the engine's verbs take and return."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from .events import Event, Forget, Item

__all__ = ["Alarm", "HistoryEntry", "IngestReport", "Recommendation", "Record", "Scores", "VersionInfo"]

# verdicts on a candidate
KEPT, PROMOTED, REFUSED = "kept", "promoted", "refused"


class Record(msgspec.Struct, frozen=True):
    """One message of a source, as a connector hands it to ``Engine.apply``.

    ``next_offset`` is what the source is asked for next once this record is committed; ``source`` is the key under
    which the store keeps it. ``value`` None moves the offset only: the message went to the dead letters before.
    """

    value: Event | Forget | Item | None
    source: str
    next_offset: int
    partition: int = 0


class IngestReport(msgspec.Struct):
    """How many records of a call ended how; ``users`` are those whose history changed."""

    applied: int = 0
    late: int = 0
    duplicate: int = 0
    too_late: int = 0
    future: int = 0
    moved: int = 0
    forgotten: int = 0
    items: int = 0
    skipped: int = 0
    users: list[str] = []

    @property
    def total(self) -> int:
        """All records of the call."""
        return self.applied + self.duplicate + self.too_late + self.future + self.forgotten + self.items + self.skipped


class Recommendation(msgspec.Struct, frozen=True):
    """A ranked list. ``items`` and ``scores`` go together, best first; scores compare within one answer only.

    ``version`` is the model version that answered (0 = none), ``source`` the rung that did: ``mix`` (model and
    memories), ``memory`` (no model for this answer), ``popular`` (nothing known of the user), ``catalogue`` (no events
    at all yet). ``explain`` holds, for every item, the score of each part.
    """

    items: list[str]
    scores: list[float]
    version: int
    source: str
    titles: list[str | None] = []
    explain: list[dict[str, float | None]] | None = None
    weights: dict[str, Any] | None = None


class HistoryEntry(msgspec.Struct, frozen=True):
    """One kept event of a user."""

    item: str
    time_ms: int
    type: str | None = None
    weight: float | None = None
    title: str | None = None


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a training; also kept with a promoted version.

    ``verdict`` is ``promoted`` (there is a new version, ``number``), ``refused`` (the gate said no) or ``kept`` (there
    were too few events to train or to judge); ``reason`` says why in a sentence. ``ndcg_*`` are NDCG over the
    ``holdout`` events of ``users`` users that neither the candidate nor its parent was trained on (``parent`` 0: a
    first version, which has none); ``lower`` bounds the difference between candidate and parent from below with
    ``confidence``, and must be above ``required``. ``fitted_events`` counts an event each time that it was learnt from,
    more often the greater the ``effort``; ``best_step`` of ``steps`` is the one whose weights were taken.
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
    ndcg_parent: float | None = None
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
    def promoted(self) -> bool:
        """Whether there is a new version."""
        return self.verdict == PROMOTED


class VersionInfo(msgspec.Struct, frozen=True):
    """One published version and what its gate said; ``rolled_back`` says why the engine went back from it."""

    number: int
    current: bool
    items: int
    report: dict[str, Any]
    rolled_back: str | None = None


class Alarm(msgspec.Struct, frozen=True):
    """One alarm of drift: its kind, the event that raised it (number in the log and time), and the means that differ.

    ``answers`` and ``model``: the NDCG@10 of the answers, or of the model alone, has fallen. ``new-items`` and
    ``new-users``: the share of events that are an item's, or a user's, first one has risen.
    """

    kind: str
    seq: int
    time_ms: int
    before: float
    after: float


class Scores(msgspec.Struct, frozen=True):
    """Everything a simulation needs to rank items for a user, before the event is learnt.

    ``rows`` are the candidate item rows that the engine would mix, ``mix`` their scores; ``parts`` maps every single
    memory and ``slow`` to scores of all items ([items], nan = not scored); ``allowed`` is the engine's own exclusion.
    """

    rows: npt.NDArray[np.int32]
    mix: npt.NDArray[np.float64]
    parts: dict[str, npt.NDArray[np.float32]]
    allowed: npt.NDArray[np.bool_]
    version: int
