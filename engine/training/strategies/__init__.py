"""Strategies of continual training: how a version learns what is new and keeps what its parent knew.

One file per idea; `base` says at which points of a fit they take part.
"""

from collections.abc import Callable

from ...config import TrainingConfig
from ...errors import ConfigError
from .anchor import Anchor
from .average import Average
from .base import Composition, FitContext, FitData, Strategy
from .compatible import Compatible
from .distill import Distill
from .lora import LoRA
from .nullspace import NullSpace
from .replay import CorrectedReplay, Replay

__all__ = ["STRATEGIES", "FitContext", "FitData", "Strategy", "create_strategy"]

_PARTS: dict[str, Callable[..., Strategy]] = {
    part.name: part
    for part in (Strategy, Replay, CorrectedReplay, Distill, Anchor, Average, NullSpace, LoRA, Compatible)
}

# names that can be composed with "+"
STRATEGIES = tuple(_PARTS)


def create_strategy(name: str, config: TrainingConfig) -> Strategy:
    """Create the strategy ``name``, for one fit: a name of ``STRATEGIES``, or several joined by "+".

    ``config.strategy_options`` has the options of each by its name; the share of replays is ``config.replay`` unless
    they have their own. Raises ``ConfigError`` for unknown names and options, and for what cannot be composed.
    """
    parts = [_part(part, config) for part in name.split("+")]
    if sum(part.share > 0 for part in parts) > 1 or len({part.name for part in parts}) < len(parts):
        raise ConfigError(f"training.strategy can hold each name and one kind of replay once, got {name!r}")
    return parts[0] if len(parts) == 1 else Composition(parts)


def _part(name: str, config: TrainingConfig) -> Strategy:
    if name not in _PARTS:
        raise ConfigError(f"training.strategy must be of {', '.join(STRATEGIES)}, joined by +, got {name!r}")
    options = next((dict(found) for part, found in config.strategy_options.items() if part == name), {})
    if name.startswith("replay"):
        options = {"share": config.replay} | options
    try:
        return _PARTS[name](**options)
    except TypeError as error:
        raise ConfigError(f"training.strategy_options.{name}: {error}") from None
