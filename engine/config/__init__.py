"""The configuration: one tree of frozen values, read from TOML, every field with its default."""

from pathlib import Path

import msgspec

from ..errors import ConfigError
from ..events import FieldNames
from .connecting import ApiConfig, AuditConfig, KafkaConfig
from .learning import MODEL_NAMES, STRATEGY_NAMES, DriftConfig, GateConfig, ModelConfig, TrainingConfig
from .section import Section
from .serving import FastConfig, MixConfig, RetrievalConfig, StateConfig, StoreConfig

__all__ = [
    "MODEL_NAMES",
    "STRATEGY_NAMES",
    "ApiConfig",
    "AuditConfig",
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


class Config(Section, frozen=True):
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
    audit: AuditConfig = AuditConfig()
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
