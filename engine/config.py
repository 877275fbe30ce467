"""The configuration: one tree of frozen values, read from TOML, every field with its default."""

from pathlib import Path

import msgspec

from .errors import ConfigError
from .events import FieldNames

__all__ = [
    "MODEL_NAMES",
    "STRATEGY_NAMES",
    "ApiConfig",
    "Config",
    "DriftConfig",
    "FastConfig",
    "GateConfig",
    "KafkaConfig",
    "MixConfig",
    "ModelConfig",
    "RetrievalConfig",
    "StateConfig",
    "StoreConfig",
    "TrainingConfig",
    "load_config",
]


MODEL_NAMES = ("streaming", "paper", "sasrec", "gru4rec")
STRATEGY_NAMES = (
    "finetune",
    "replay",
    "replay-corrected",
    "distill",
    "anchor",
    "average",
    "nullspace",
    "lora",
    "compatible",
)
_MODEL_SIZES = (
    "d_model",
    "layers",
    "heads",
    "head_dim",
    "d_state",
    "d_conv",
    "time_hidden",
    "max_length",
    "attention_heads",
    "gru_hidden",
)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every section: immutable, unknown names refused."""


class StoreConfig(_Section, frozen=True):
    """Durable truth: histories, log, ids, offsets."""

    # A: a history keeps 2 * anchor events, states restart at multiples of it
    anchor: int = 128
    # newest events of all users that the log keeps, for training and recovery
    log_events: int = 2_000_000
    # users whose histories are also held in memory
    hot_histories: int = 65_536
    # bounds of one atomic commit
    batch_events: int = 512
    batch_bytes: int = 1_000_000
    # commits reach the device at least this often
    sync_ms: int = 1_000
    # events later than the clock by more than this are refused
    future_tolerance_ms: int = 86_400_000
    # item rows kept in the seen set of a user, newest first; 0 keeps all
    seen_horizon: int = 0
    # RocksDB's block cache
    cache_bytes: int = 64 << 20
    # new events of a user gather in a small record until it holds more than this, then join the large one; a store
    # keeps the value that it was made with
    tail_events: int = 16


class ModelConfig(_Section, frozen=True):
    """Shape of a model; a model ignores the fields that it has no use for.

    Raises ``ConfigError`` for a value that no model could be built with.
    """

    # streaming serves; paper, sasrec and gru4rec are there to be compared with: `recurra evaluate`
    name: str = "streaming"
    # width of vectors, and number of layers
    d_model: int = 64
    layers: int = 2
    # of the scan: heads, channels per head, state size per channel, width of the convolution
    heads: int = 4
    head_dim: int = 32
    d_state: int = 32
    d_conv: int = 4
    # let the model see the times of events, by a small network of this width
    time: bool = True
    time_hidden: int = 16
    # modulate the user's vector for the time of the query
    query_time: bool = True
    # share of values that training drops, and the constant of the norms
    dropout: float = 0.2
    norm_eps: float = 1e-12
    # share of items that training shows as the unknown item
    unknown_rate: float = 0.02
    # length that the item vectors are searched with, so that none is preferred for its own; 0 leaves them as learnt
    item_length: float = 0.0
    # buckets that categories, words of titles and other attributes of items are hashed into; 0 reads ids alone
    attributes: int = 0
    # most events of a row that paper and sasrec read; the rows of paper are padded to it
    max_length: int = 200
    # heads of an attention layer of sasrec
    attention_heads: int = 2
    # width of the states of gru4rec
    gru_hidden: int = 128
    # dropout in the time branch of paper
    time_dropout: float = 0.2
    # paper: the gate between old and new time features differs by position
    p2p_residual: bool = False
    # paper: convolutions start from He's normal distribution, not from the framework's uniform one
    kaiming_init: bool = True
    # paper: SiLU after the convolutions, not hardswish
    conv_silu: bool = False

    def __post_init__(self) -> None:
        if self.name not in MODEL_NAMES:
            raise ConfigError(f"model.name must be one of {', '.join(MODEL_NAMES)}, got {self.name!r}")
        for field in _MODEL_SIZES:
            if getattr(self, field) < 1:
                raise ConfigError(f"model.{field} must be at least 1, got {getattr(self, field)}")
        if self.item_length < 0:
            raise ConfigError(f"model.item_length must not be negative, got {self.item_length}")
        for field in ("dropout", "time_dropout", "unknown_rate"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"model.{field} must be at least 0 and below 1, got {getattr(self, field)}")
        if self.name == "sasrec" and self.d_model % self.attention_heads:
            raise ConfigError(
                "model.d_model must be a multiple of model.attention_heads, "
                f"got {self.d_model} and {self.attention_heads}"
            )


class StateConfig(_Section, frozen=True):
    """The slab of per-user model states."""

    # users whose states are in memory, over the serving version and the next one together
    hot_users: int = 16_384
    # "float32", or "bfloat16" at half the memory
    dtype: str = "float32"
    # where states are kept and advanced: "cpu", or "cuda" (needs the extra gpu)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ConfigError(f"states.device must be cpu or cuda, got {self.device!r}")


class TrainingConfig(_Section, frozen=True):
    """Background training: what it learns from, and when it starts."""

    # "auto" trains in the background, "off" only when asked
    mode: str = "auto"
    # a first version needs this many events in the log
    min_events: int = 2_000
    # later versions start after this many new events
    every_events: int = 4_000
    # or, if above 0, when this much time has passed since the last training and any event came in
    every_seconds: float = 0.0
    # of the training program: its threads, and how much it steps back for others
    threads: int = 1
    nice: int = 10
    # of its threads' time, what the training program takes at most: it rests between steps
    share: float = 1.0
    seed: int = 0
    # the first version: at most so many passes over the log, and so many events read in all
    first_passes: int = 25
    first_tokens: int = 800_000
    # peak learning rate of the first version
    first_rate: float = 2e-3
    # later ones: events read per new event, and the share of older windows among them
    tokens_per_event: int = 24
    replay: float = 0.5
    # peak learning rate of later versions
    rate: float = 2e-3
    # how a later version keeps what its parent knew: names joined by "+", and options of each by its name
    strategy: str = "replay+distill+average"
    strategy_options: dict[str, dict[str, float]] = {}
    # events of one optimiser step, padding included; fewer while the log is short
    batch_events: int = 2_048
    # decoupled weight decay of AdamW
    weight_decay: float = 0.0
    # "cpu", "cuda", or "auto" for a GPU where there is one
    device: str = "cpu"
    # of the loss's matrix products, on a GPU of the layers' too: "float32", "bfloat16", or "auto" for what is fast here
    precision: str = "auto"
    # share of the windows that train the modulation for the time of the query; the others train the vector itself
    query_time_share: float = 0.5
    # catalogues beyond this many items are estimated from so many drawn ones
    sampled_above: int = 30_000
    negatives: int = 4_096
    # older versions are removed, the current one never
    keep_versions: int = 10

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda", "auto"):
            raise ConfigError(f"training.device must be cpu, cuda or auto, got {self.device!r}")
        if any(part not in STRATEGY_NAMES for part in self.strategy.split("+")):
            names = ", ".join(STRATEGY_NAMES)
            raise ConfigError(
                f"training.strategy must be one of {names}, or several joined by +, got {self.strategy!r}"
            )
        if not 0 < self.share <= 1:
            raise ConfigError(f"training.share must be above 0 and at most 1, got {self.share}")


class GateConfig(_Section, frozen=True):
    """When a candidate version may serve."""

    # the newest events, at least so many and this share of those that the serving version was not trained on
    holdout_events: int = 500
    holdout_share: float = 0.2
    # promote if the lower bound of the NDCG difference is above this share of the serving version's NDCG
    margin: float = -0.02
    # of the one-sided interval, by resampling users so many times
    confidence: float = 0.90
    resamples: int = 1_000
    # after a switch the version before is asked about so many sampled events too; 0 never rolls back by itself
    shadow_events: int = 1_000
    # users whose states under the version before are held meanwhile
    shadow_users: int = 256
    # probability, at most, that a version within the margin is rolled back for no reason
    rollback_level: float = 0.01


class DriftConfig(_Section, frozen=True):
    """Alarms of drift, and training early because of one."""

    # ADWIN's confidence for the NDCG@10 of sampled events, of the answers and of the model
    delta: float = 0.002
    # the same for the shares of first events of items and of users, among all events
    input_delta: float = 1e-4
    # an alarm asks for a training once so many further events came in: there must be something to learn; 0 never does
    train_after: int = 1_000
    # after the answers' or the model's NDCG fell to a half, say, trainings learn at twice the rate and read 2.5 times
    # as much (2 to the power of 1.3); so many times the rate at most, and for so many events; 1 makes no difference
    effort: float = 4.0
    effort_events: int = 5_000

    def __post_init__(self) -> None:
        if self.effort < 1:
            raise ConfigError(f"drift.effort must be at least 1, got {self.effort}")


class FastConfig(_Section, frozen=True):
    """The counting memories."""

    # half-lives of decayed popularity, in events
    half_lives: tuple[float, ...] = (500.0, 5_000.0, 50_000.0)
    # neighbours kept per item, rounded up to a power of two
    neighbours: int = 512
    # pairs kept in all, of 12 bytes each, in each of three tables: co-occurrence, order, direct succession
    pair_entries: int = 16_777_216
    # slow and fast half-life of the pairs of items, in events
    pair_half_lives: tuple[float, float] = (200_000.0, 15_000.0)
    # last events of a user that a new one is paired with, and users for whom they are held in memory
    context: int = 20
    contexts: int = 65_536
    # last events before which the user's vector is kept, to be searched by; 0 keeps none
    error_events: int = 4_096
    # a snapshot of the memories is written after so many events; a start reads the log after it
    snapshot_events: int = 200_000


class MixConfig(_Section, frozen=True):
    """The mixture of slow and fast scores."""

    # share of events that the mixture learns from; a replay uses 1
    sample: float = 0.02


class RetrievalConfig(_Section, frozen=True):
    """Search of items by the user's vector."""

    # catalogues up to this size are searched exactly
    exact_items: int = 50_000
    # candidates taken from each source before mixing
    candidates: int = 200
    # share of the exact answer that a search of a larger catalogue has to find
    recall_target: float = 0.95
    # leave the items that a user had out of the user's answers, and of the negatives of the next item in training
    exclude_seen: bool = True
    # modulate the user's vector for the time of the query
    query_time: bool = True


class KafkaConfig(_Section, frozen=True):
    """The Kafka source and its outputs."""

    # "confluent" or "kafka-python"
    client: str = "confluent"
    # of the events and of requests, not of the catalogue: "all" or a list of partition numbers
    partitions: str | tuple[int, ...] = "all"
    # for a store without offsets: "earliest", "latest" or milliseconds since the epoch
    start: str | int = "earliest"
    # consumer group to which offsets are reported, for lag monitors only; engines that read the same partitions need
    # one each
    group: str = "recurra"
    # topic of item records
    catalogue_topic: str | None = None
    # topic that gets the new list of every user with an event, of so many items
    output_topic: str | None = None
    output_k: int = 10
    # topics of requests for lists and of their answers
    request_topic: str | None = None
    reply_topic: str | None = None
    # topic of messages that cannot be applied; without it they go to a file in the data directory
    dead_letter_topic: str | None = None
    # go on after events that the broker deleted before they were read
    skip_lost: bool = False
    # handed to the client as they are: sasl.*, ssl.*, security.protocol, ...
    options: dict[str, str | int | float | bool] = {}


class ApiConfig(_Section, frozen=True):
    """The HTTP endpoint."""

    # address to listen on
    host: str = "127.0.0.1"
    port: int = 8000
    # names that requests may give as their host, beside those of loopback; without any, a service that listens on
    # loopback serves loopback's names only, and any other service all names
    hosts: tuple[str, ...] = ()


class Config(_Section, frozen=True):
    """Everything that can be configured.

    >>> Config(retrieval=RetrievalConfig(exclude_seen=False)).retrieval.exclude_seen
    False
    """

    # threads that serving may compute with
    threads: int = 1
    seed: int = 0
    events: FieldNames = FieldNames()
    store: StoreConfig = StoreConfig()
    model: ModelConfig = ModelConfig()
    states: StateConfig = StateConfig()
    training: TrainingConfig = TrainingConfig()
    gate: GateConfig = GateConfig()
    drift: DriftConfig = DriftConfig()
    fast: FastConfig = FastConfig()
    mix: MixConfig = MixConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    kafka: KafkaConfig = KafkaConfig()
    api: ApiConfig = ApiConfig()


def load_config(path: str | Path | None) -> Config:
    """Read a TOML file; None gives the defaults. Raises ``ConfigError`` with the offending field.

    >>> load_config(None).store.anchor
    128
    """
    if path is None:
        return Config()
    try:
        return msgspec.toml.decode(Path(path).read_bytes(), type=Config)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}; `recurra init` writes one") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
