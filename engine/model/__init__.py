"""The streaming model: its training form, its time features, and the weights of its step."""

from .streaming import StreamingModel
from .time import gap_features
from .weights import StepWeights, load, save

__all__ = ["StepWeights", "StreamingModel", "gap_features", "load", "save"]
