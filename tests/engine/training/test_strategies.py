import msgspec
import pytest

from recurra.engine.config import STRATEGY_NAMES, Config, TrainingConfig
from recurra.engine.errors import ConfigError
from recurra.engine.training import STRATEGIES, create_strategy


def test_names_can_be_composed() -> None:
    assert set(STRATEGIES) <= set(STRATEGY_NAMES)
    config = TrainingConfig(strategy="replay+finetune", replay=0.25)
    assert create_strategy(config.strategy, config).share == 0.25
    assert create_strategy("finetune", config).share == 0


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(ConfigError, match=r"training\.strategy must be one of finetune, replay.*, got 'replay\+magic'"):
        TrainingConfig(strategy="replay+magic")
    with pytest.raises(ConfigError, match="must be one of"):
        msgspec.structs.replace(Config().training, strategy="")
    with pytest.raises(ConfigError, match=r"strategy_options\.replay: .*'shar'"):
        create_strategy("replay", TrainingConfig(strategy_options={"replay": {"shar": 1.0}}))
    with pytest.raises(ConfigError, match="one kind of replay once"):
        create_strategy("replay+replay", TrainingConfig())
