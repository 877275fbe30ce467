"""Devices by the names that settings give them."""

import torch

from .errors import ConfigError

__all__ = ["device_of"]


def device_of(setting: str, *, name: str) -> torch.device:
    """Return the device of a setting: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.

    ``name`` is what the user knows the setting by. Raises ``ConfigError`` for anything else, and if CUDA is asked for
    and there is none.
    """
    if setting not in ("cpu", "cuda", "auto"):
        raise ConfigError(f"{name} must be cpu, cuda or auto, got {setting!r}")
    if setting == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if setting == "cuda":
        raise ConfigError(f"{name} is cuda, and torch finds no CUDA device here; use cpu or auto")
    return torch.device("cpu")
