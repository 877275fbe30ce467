"""The sequence models: their training form, their time features, and the weights of the streaming model's step."""

from .base import SequenceModel
from .streaming import StreamingModel
from .time import gap_features
from .weights import StepWeights, load, save

__all__ = ["SequenceModel", "StepWeights", "StreamingModel", "gap_features", "load", "save"]
