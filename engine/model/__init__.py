"""Sequence models: their training form, their time features, and the weights of the streaming model's step."""

from .base import SequenceModel
from .gru4rec import GRU4RecModel
from .layer import LayerState, StreamingLayer
from .official import load_official
from .paper import PaperModel
from .registry import check_streams, create_model
from .sasrec import SASRecModel
from .streaming import StreamingModel
from .time import gap_features
from .weights import NewItems, StepWeights, load, save

__all__ = [
    "GRU4RecModel",
    "LayerState",
    "NewItems",
    "PaperModel",
    "SASRecModel",
    "SequenceModel",
    "StepWeights",
    "StreamingLayer",
    "StreamingModel",
    "check_streams",
    "create_model",
    "gap_features",
    "load",
    "load_official",
    "save",
]
