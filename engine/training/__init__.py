"""Background training: a program of its own that turns the log into gated versions, and the engine's side of it."""

from .protocol import TrainReport
from .supervisor import Trainer

__all__ = ["TrainReport", "Trainer"]
