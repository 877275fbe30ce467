"""Sections about models: shape, training, gate, drift."""

from typing import Annotated, Literal, get_args

from msgspec import Meta

from ..errors import ConfigError
from .kinds import (
    Chance,
    Count,
    CountOrNone,
    LearningRate,
    PartialShare,
    Rows,
    Seconds,
    Seed,
    Share,
    Threads,
    Width,
)
from .section import Section

__all__ = ["MODEL_NAMES", "STRATEGY_NAMES", "DriftConfig", "GateConfig", "ModelConfig", "TrainingConfig"]

_Model = Literal["streaming", "paper", "sasrec", "gru4rec"]
_Strategy = Literal[
    "finetune", "replay", "replay-corrected", "distill", "anchor", "average", "nullspace", "lora", "compatible"
]
MODEL_NAMES: tuple[str, ...] = get_args(_Model)
STRATEGY_NAMES: tuple[str, ...] = get_args(_Strategy)
_NAME = "|".join(STRATEGY_NAMES)
_Strategies = Annotated[
    str,
    Meta(
        pattern=rf"^(?:{_NAME})(?:\+(?:{_NAME}))*\Z",
        description=f"one of {', '.join(STRATEGY_NAMES)}, or several joined by +",
    ),
]
_Heads = Annotated[int, Meta(ge=1, le=1_024)]
_Length = Annotated[float, Meta(ge=0, le=10**6)]
_Options = Annotated[
    dict[_Strategy, dict[str, Annotated[float, Meta(ge=0, le=10**9)]]],
    Meta(description="tables by strategies' names, of numbers, 0 to 1_000_000_000"),
]
_Tokens = Annotated[int, Meta(ge=1, le=10**6)]


class ModelConfig(Section, frozen=True):
    """Shape of a model; a model ignores the fields that it has no use for.

    Raises ``ConfigError`` for a value that no model could be built with.
    """

    section = "model"

    # streaming serves; paper, sasrec and gru4rec are there to be compared with: `recurra evaluate`
    name: _Model = "streaming"
    # width of vectors, and number of layers
    d_model: Width = 64
    layers: Annotated[int, Meta(ge=1, le=64)] = 2
    # of the scan: heads, channels per head, state size per channel, width of the convolution (4 is what serves)
    heads: _Heads = 4
    head_dim: _Heads = 32
    d_state: _Heads = 32
    d_conv: Annotated[int, Meta(ge=1, le=64)] = 4
    # let the model see the times of events, by a small network of this width
    time: bool = True
    time_hidden: Width = 16
    # modulate the user's vector for the time of the query
    query_time: bool = True
    # share of values that training drops, and the constant of the norms
    dropout: PartialShare = 0.2
    norm_eps: Annotated[float, Meta(ge=1e-30, le=1)] = 1e-12
    # share of items that training shows as the unknown item
    unknown_rate: PartialShare = 0.02
    # length that the item vectors are searched with, so that none is preferred for its own; 0 leaves them as learnt
    item_length: _Length = 0.0
    # buckets that categories, words of titles and other attributes of items are hashed into; 0 reads ids alone
    attributes: Annotated[int, Meta(ge=0, le=2**24)] = 4_096
    # most events of a row that paper and sasrec read; the rows of paper are padded to it
    max_length: Annotated[int, Meta(ge=1, le=65_536)] = 200
    # heads of an attention layer of sasrec
    attention_heads: _Heads = 2
    # width of the states of gru4rec
    gru_hidden: Width = 128
    # dropout in the time branch of paper
    time_dropout: PartialShare = 0.2
    # paper: the gate between old and new time features differs by position
    p2p_residual: bool = False
    # paper: convolutions start from He's normal distribution, not from the framework's uniform one
    kaiming_init: bool = True
    # paper: SiLU after the convolutions, not hardswish
    conv_silu: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "streaming" and self.d_conv < 2:
            raise ConfigError(f"model.d_conv must be at least 2 for the streaming model, got {self.d_conv}")
        if self.name == "sasrec" and self.d_model % self.attention_heads:
            raise ConfigError(
                "model.d_model must be a multiple of model.attention_heads, "
                f"got {self.d_model} and {self.attention_heads}"
            )


class TrainingConfig(Section, frozen=True):
    """Background training: what it learns from, and when it starts."""

    section = "training"

    # "auto" trains in the background, "off" only when asked
    mode: Literal["auto", "off"] = "auto"
    # a first version needs this many events in the log
    min_events: CountOrNone = 2_000
    # later versions start after this many new events, and after this share of all events so far, whichever is more: the
    # work then grows with the logarithm of the stream
    every_events: Count = 4_000
    every_share: Share = 0.02
    # or, if above 0, when this much time has passed since the last training and any event came in
    every_seconds: Seconds = 0.0
    # of the training program: its threads, and how much it steps back for others
    threads: Threads = 1
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    # of its threads' time, what the training program takes at most: it rests between steps
    share: Annotated[float, Meta(ge=0.001, le=1)] = 1.0
    seed: Seed = 0
    # the first version: at most so many passes over the log, and so many events read in all
    first_passes: _Tokens = 25
    first_tokens: Count = 800_000
    # peak learning rate of the first version
    first_rate: LearningRate = 2e-3
    # later ones: events read per new event, and the share of older windows among them
    tokens_per_event: _Tokens = 24
    replay: PartialShare = 0.5
    # peak learning rate of later versions
    rate: LearningRate = 2e-3
    # how a later version keeps what its parent knew: names joined by "+", and options of each by its name
    strategy: _Strategies = "replay+distill+average"
    strategy_options: _Options = {}  # noqa: RUF012 (msgspec copies it)
    # events of one optimiser step, padding included; fewer while the log is short
    batch_events: _Tokens = 2_048
    # decoupled weight decay of AdamW
    weight_decay: Annotated[float, Meta(ge=0, le=100)] = 0.0
    # "cpu", "cuda", or "auto" for a GPU where there is one
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    # of the loss's matrix products, on a GPU of the layers' too: "float32", "bfloat16", or "auto" for what is fast here
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    # share of the windows that train the modulation for the time of the query; the others train the vector itself
    query_time_share: Share = 0.5
    # catalogues beyond this many items are estimated from so many drawn ones
    sampled_above: Rows = 30_000
    negatives: _Tokens = 4_096
    # older versions are removed, the current one never
    keep_versions: _Tokens = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.strategy.split("+")
        if len(set(names)) < len(names) or {"replay", "replay-corrected"} <= set(names):
            raise ConfigError(
                f"training.strategy can hold each name and one kind of replay once, got {self.strategy!r}"
            )
        for name, options in self.strategy_options.items():
            if options.get("share", 0) >= 1:
                raise ConfigError(
                    f"training.strategy_options.{name}.share must be at least 0 and below 1, got {options['share']}"
                )


class GateConfig(Section, frozen=True):
    """When a candidate version may serve."""

    section = "gate"

    # the newest events, at least so many and this share of those that the serving version was not trained on
    holdout_events: Count = 500
    holdout_share: Share = 0.2
    # promote if the lower bound of the NDCG difference is above this share of the serving version's NDCG
    margin: Annotated[float, Meta(ge=-(10**9), le=10**9)] = -0.02
    # of the one-sided interval, by resampling users so many times
    confidence: Chance = 0.90
    resamples: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    # after a switch the version before is asked about so many of the events that the mixture learns from, too; 0 never
    # rolls back by itself
    shadow_events: CountOrNone = 1_000
    # users whose states under the version before are held meanwhile
    shadow_users: Annotated[int, Meta(ge=1, le=50_000_000)] = 256
    # probability, at most, that a version within the margin is rolled back for no reason
    rollback_level: Chance = 0.01


class DriftConfig(Section, frozen=True):
    """Alarms of drift, and training early because of one."""

    section = "drift"

    # ADWIN's confidence for the NDCG@10, of the answers and of the model, of the events that the mixture learns from
    delta: Chance = 0.002
    # the same for the shares of first events of items and of users, among all events
    input_delta: Chance = 1e-4
    # an alarm asks for a training once so many further events came in: there must be something to learn; 0 never does
    train_after: CountOrNone = 1_000
    # after the answers' or the model's NDCG fell to a half, say, trainings learn at twice the rate and read 2.5 times
    # as much (2 to the power of 1.3); so many times the rate at most, and for so many events; 1 makes no difference
    effort: Annotated[float, Meta(ge=1, le=100)] = 4.0
    effort_events: CountOrNone = 5_000
