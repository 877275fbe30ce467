"""Types that the verbs of an engine take and return; all of them are public."""

import msgspec
import numpy as np
import numpy.typing as npt

from .events import Event, Forget, Item

__all__ = [
    "KEPT",
    "PROMOTED",
    "REFUSED",
    "Alarm",
    "DriftHealth",
    "Health",
    "HistoryEntry",
    "IngestReport",
    "MixWeights",
    "OutletHealth",
    "Recommendation",
    "Record",
    "Refusal",
    "RequestsHealth",
    "Scores",
    "SourceHealth",
    "TrainReport",
    "TrainingHealth",
    "VersionInfo",
]

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


class MixWeights(msgspec.Struct, frozen=True, omit_defaults=True, rename={"evidence": "ndcg@10", "shared": "weights"}):
    """What the mixture has learnt, over all situations.

    ``evidence`` is the decayed NDCG@10 of every part alone and of their ``combination``; ``shared`` are the two weights
    of every part in the combination, for its scores relative to the best candidate: in logarithms, and as a share.
    ``answered`` is the part, or ``combination``, whose scores gave an answer; None where it is not about one.
    """

    evidence: dict[str, float]
    shared: dict[str, tuple[float, float]]
    answered: str | None = None


class Recommendation(msgspec.Struct, frozen=True):
    """A ranked list. ``items`` and ``scores`` go together, best first; scores compare within one answer only.

    ``version`` is the model version that answered (0 = none), ``source`` the rung that did: ``mix`` (model and
    memories), ``memory`` (no model for this answer), ``popular`` (nothing known of the user), ``catalogue`` (no events
    at all yet). ``explain`` holds, for every item, the score of each part, and ``weights``
    what the mixture makes of them. ``notes`` say what is odd about the question: a filter over an attribute that no
    item has.
    """

    items: list[str]
    scores: list[float]
    version: int
    source: str
    titles: list[str | None] = []
    explain: list[dict[str, float | None]] | None = None
    weights: MixWeights | None = None
    notes: list[str] = []


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


class Refusal(TrainReport, frozen=True, kw_only=True):
    """Report of a candidate that the gate refused."""


class VersionInfo(msgspec.Struct, frozen=True):
    """One promoted version: whether it serves, what its gate said, and why the engine rolled it back if it did."""

    number: int
    serving: bool
    items: int
    report: TrainReport
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


class TrainingHealth(msgspec.Struct, frozen=True):
    """State of background training, with counts since the engine was opened; ``pid`` None: no training program runs."""

    running: bool
    pid: int | None
    trained: int
    promoted: int
    refused: int
    rolled_back: int
    last: str | None
    last_rollback: str | None

    @property
    def counts(self) -> dict[str, int]:
        """The counts by their names."""
        return {name: getattr(self, name) for name in ("trained", "promoted", "refused", "rolled_back")}


class DriftHealth(msgspec.Struct, frozen=True):
    """Alarms of drift since the engine was opened: how many by kind, and the last one."""

    alarms: dict[str, int]
    last: Alarm | None


class OutletHealth(msgspec.Struct, frozen=True):
    """The output topic: how many lists were sent, and what keeps them back."""

    sent: int
    problem: str | None


class RequestsHealth(msgspec.Struct, frozen=True):
    """The request topic: how many requests were answered, and what keeps the others back."""

    answered: int
    problem: str | None


class AuditHealth(msgspec.Struct, frozen=True):
    """The last audit of sampled users in the background: ``clean``, ``wrong`` or ``impossible``; None before the first.

    ``users`` were compared, ``wrong_users`` differed from the source; ``reason`` says why an audit was impossible.
    """

    outcome: str | None
    users: int
    wrong_users: int
    problem: str | None
    reason: str | None = None


class SourceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A source of events: ``connected`` says whether events can come in, ``problem`` why not.

    The other fields depend on the ``kind``: ``kafka``, ``file``, ``stdin`` or ``none``. ``offsets`` are the next ones
    to be read and ``lag`` the messages that wait, by ``TOPIC/PARTITION``; ``lost`` counts messages given up by the flag
    that allows it, ``refused`` those that went to the dead letters. ``group_problem`` says why offsets cannot be
    reported to the consumer group, which keeps nothing from being read.
    """

    kind: str
    connected: bool
    state: str
    problem: str | None
    path: str | msgspec.UnsetType = msgspec.UNSET
    topic: str | msgspec.UnsetType = msgspec.UNSET
    events: int | msgspec.UnsetType = msgspec.UNSET
    total: int | msgspec.UnsetType = msgspec.UNSET
    messages: int | msgspec.UnsetType = msgspec.UNSET
    refused: int | msgspec.UnsetType = msgspec.UNSET
    lost: int | msgspec.UnsetType = msgspec.UNSET
    offsets: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    lag: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    group_problem: str | msgspec.UnsetType | None = msgspec.UNSET
    output: OutletHealth | msgspec.UnsetType = msgspec.UNSET
    requests: RequestsHealth | msgspec.UnsetType = msgspec.UNSET
    audit: AuditHealth | msgspec.UnsetType = msgspec.UNSET

    @property
    def problems(self) -> dict[str, str]:
        """The problems by part: of the ``source`` itself, of the topics of ``output`` and of ``requests``."""
        parts = {"source": self, "output": self.output, "requests": self.requests}
        found = {name: part.problem for name, part in parts.items() if part is not msgspec.UNSET}
        return {name: problem for name, problem in found.items() if problem is not None}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """State of an engine: ``status`` is ``ok`` or ``degraded``, ``problems`` says why by part.

    ``version`` 0 means that none serves yet. A service adds the health of its ``source``.
    """

    status: str
    version: int
    users: int
    items: int
    events: int
    training: TrainingHealth
    drift: DriftHealth
    problems: dict[str, str]
    source: SourceHealth | msgspec.UnsetType = msgspec.UNSET


class Scores(msgspec.Struct, frozen=True):
    """Everything a simulation needs to rank items for a user, before the event is learnt.

    ``rows`` are the candidate item rows that the engine would mix, ``mix`` their scores; ``parts`` maps every single
    memory and ``slow`` to scores of all items ([items], nan = not scored); ``allowed`` is the engine's own exclusion.
    If the next event is of this user and time, the mixture learns from it by this ranking, which does not know of
    catalogue records that are applied in between.
    """

    rows: npt.NDArray[np.int32]
    mix: npt.NDArray[np.float64]
    parts: dict[str, npt.NDArray[np.float32]]
    allowed: npt.NDArray[np.bool_]
    version: int
