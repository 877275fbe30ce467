"""The configuration: one tree of frozen values, read from TOML, every field with its default."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import ConfigError, shown
from .connecting import ApiConfig, AuditConfig, KafkaConfig
from .fields import FieldNames
from .kinds import MOST_BYTES, Seed, Threads
from .learning import MODEL_NAMES, STRATEGY_NAMES, DriftConfig, GateConfig, ModelConfig, TrainingConfig
from .section import Section, bounds_of
from .serving import FastConfig, MixConfig, RetrievalConfig, StateConfig, StoreConfig

__all__ = [
    "MODEL_NAMES",
    "STRATEGY_NAMES",
    "ApiConfig",
    "AuditConfig",
    "Config",
    "DriftConfig",
    "FastConfig",
    "FieldNames",
    "GateConfig",
    "KafkaConfig",
    "MixConfig",
    "ModelConfig",
    "RetrievalConfig",
    "Section",
    "StateConfig",
    "StoreConfig",
    "TrainingConfig",
    "bounds_of",
    "check_opening",
    "load_config",
]


_Some = TypeVar("_Some", bound=Section)


class Config(Section, frozen=True):
    """Everything that can be configured.

    >>> Config(retrieval=RetrievalConfig(exclude_seen=False)).retrieval.exclude_seen
    False
    """

    # threads that serving may compute with
    threads: Threads = 1
    seed: Seed = 0
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
    audit: AuditConfig = AuditConfig()
    api: ApiConfig = ApiConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fast.contexts < self.store.batch_events:
            raise ConfigError(
                "fast.contexts must be at least store.batch_events, as a batch may be of so many users, "
                f"got {self.fast.contexts} and {self.store.batch_events}"
            )
        model, users = self.model, self.states.hot_users
        channels = model.heads * model.head_dim
        scan, window = model.d_state * channels, (model.d_conv - 1) * (channels + 2 * model.d_state)
        # as float32
        each = 4 * (model.layers * (scan + window) + model.d_model)
        if users * each > MOST_BYTES:
            raise ConfigError(
                f"states.hot_users of {users:_} users whose states under [model] have {each:_} bytes each "
                f"would be laid out for more than {MOST_BYTES >> 40} TiB"
            )


def check_opening(path: object, config: object) -> None:
    """Raise ``ConfigError`` unless these are a directory and a configuration, or None, to open an engine with."""
    if not isinstance(path, str | Path) or path == "":
        raise ConfigError(f"the directory of an engine must be a path, got {shown(path)}")
    if config is not None and not isinstance(config, Config):
        raise ConfigError(f"the configuration of an engine must be a Config, got {shown(config)}")


def load_config(path: str | Path | None) -> Config:
    """Read a TOML file; None gives the defaults. Raises ``ConfigError`` with the offending field.

    >>> load_config(None).store.anchor
    128
    """
    if path is None:
        return Config()
    try:
        # editors of Windows begin a file with a mark of its encoding
        values = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}; `recurra init` writes one") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    # no TOML, no UTF-8, integers of thousands of digits, lists in lists without end
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return _built(Config, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _built(section: type[_Some], values: dict[str, Any]) -> _Some:
    kinds = {field.name: field.type for field in msgspec.structs.fields(section)}
    built: dict[str, Any] = {}
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            raise ConfigError(f"there is no setting {f'{section.section}.{name}'.removeprefix('.')}")
        inner = isinstance(kind, type) and issubclass(kind, Section) and isinstance(value, dict)
        built[name] = _built(kind, value) if inner else value
    return section(**built)
