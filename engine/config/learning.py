"""Sections about models: shape, training, gate, drift."""

from ..errors import ConfigError
from .section import Section

__all__ = ["MODEL_NAMES", "STRATEGY_NAMES", "DriftConfig", "GateConfig", "ModelConfig", "TrainingConfig"]

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


class ModelConfig(Section, frozen=True):
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
    attributes: int = 4_096
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


class TrainingConfig(Section, frozen=True):
    """Background training: what it learns from, and when it starts."""

    # "auto" trains in the background, "off" only when asked
    mode: str = "auto"
    # a first version needs this many events in the log
    min_events: int = 2_000
    # later versions start after this many new events, and after this share of all events so far, whichever is more: the
    # work then grows with the logarithm of the stream
    every_events: int = 4_000
    every_share: float = 0.02
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
    strategy_options: dict[str, dict[str, float]] = {}  # noqa: RUF012 (msgspec copies it)
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


class GateConfig(Section, frozen=True):
    """When a candidate version may serve."""

    # the newest events, at least so many and this share of those that the serving version was not trained on
    holdout_events: int = 500
    holdout_share: float = 0.2
    # promote if the lower bound of the NDCG difference is above this share of the serving version's NDCG
    margin: float = -0.02
    # of the one-sided interval, by resampling users so many times
    confidence: float = 0.90
    resamples: int = 1_000
    # after a switch the version before is asked about so many of the events that the mixture learns from, too; 0 never
    # rolls back by itself
    shadow_events: int = 1_000
    # users whose states under the version before are held meanwhile
    shadow_users: int = 256
    # probability, at most, that a version within the margin is rolled back for no reason
    rollback_level: float = 0.01


class DriftConfig(Section, frozen=True):
    """Alarms of drift, and training early because of one."""

    # ADWIN's confidence for the NDCG@10, of the answers and of the model, of the events that the mixture learns from
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
