"""Factory of slabs: the one for the device that a configuration names."""

from ..config import StateConfig
from ..devices import device_of
from ..errors import ConfigError
from ..model.weights import StepWeights
from .cpu import StateSlab
from .slab import Slab

__all__ = ["create_slab"]


def create_slab(weights: StepWeights, slots: int, config: StateConfig, *, threads: int = 1) -> Slab:
    """Create the slab that ``config.device`` says. Raises ``ConfigError`` where that device cannot be used."""
    if config.device == "cpu":
        return StateSlab(weights, slots, config.dtype, threads=threads)
    device = device_of(config.device, name="states.device")
    try:
        # its kernels need the optional extra gpu
        from .gpu import DeviceSlab
    except ModuleNotFoundError as error:
        raise ConfigError(f"states.device is {config.device}: {error}; or use cpu") from None
    return DeviceSlab(weights, slots, config.dtype, device=device)
