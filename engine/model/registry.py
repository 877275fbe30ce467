"""Registry of models by the names of the configuration, and which of them the engine can serve."""

import torch

from ..config import ModelConfig
from ..errors import ConfigError
from ..events import Features
from .base import SequenceModel
from .gru4rec import GRU4RecModel
from .paper import PaperModel
from .sasrec import SASRecModel
from .streaming import StreamingModel

__all__ = ["MODELS", "check_streams", "create_model"]

MODELS: dict[str, type[SequenceModel]] = {
    "streaming": StreamingModel,
    "paper": PaperModel,
    "sasrec": SASRecModel,
    "gru4rec": GRU4RecModel,
}

_WHY_NOT_SERVED = {
    "paper": "its time module mixes a whole padded row, so it has no state that one more event could advance",
    "sasrec": "attention reads the whole history again at every event, so it has no state of fixed size",
    "gru4rec": "it is there to be compared with, and the engine keeps the states of the streaming model only",
}


# of the convolution: the compiled step has so many
_TAPS = 4


def create_model(
    config: ModelConfig, items: int, *, features: Features | None = None, generator: torch.Generator | None = None
) -> SequenceModel:
    """Create the model that ``config.name`` says, over a vocabulary of ``items`` items.

    ``features`` of the items are for the streaming model, the others read ids alone. ``generator`` draws the initial
    values; None means a generator with seed 0.
    """
    model = MODELS[config.name]
    if model is StreamingModel:
        return StreamingModel(config, items, features=features, generator=generator)
    return model(config, items, generator=generator)  # type: ignore[call-arg]  # the base takes none


def check_streams(config: ModelConfig) -> None:
    """Raise ``ConfigError`` if the engine cannot serve the model that ``config`` says."""
    if not MODELS[config.name].streams:
        raise ConfigError(
            f"the model {config.name} cannot serve a stream: {_WHY_NOT_SERVED[config.name]}; "
            f'`recurra evaluate --model {config.name}` measures it, model.name = "streaming" serves'
        )
    if config.d_conv != _TAPS:
        raise ConfigError(f"model.d_conv must be {_TAPS} for the streaming model to serve, got {config.d_conv}")
