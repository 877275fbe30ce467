"""Training: a program of its own that turns the log into gated versions, the engine's side of it, and its parts."""

from .fit import Fitted, Material, fit
from .learner import Learner, Step, cosine
from .loss import Sampler, at_events, vectors_before
from .protocol import TrainReport
from .supervisor import Trainer
from .windows import Batch, UserLog, Windows, batches, pack

__all__ = [
    "Batch",
    "Fitted",
    "Learner",
    "Material",
    "Sampler",
    "Step",
    "TrainReport",
    "Trainer",
    "UserLog",
    "Windows",
    "at_events",
    "batches",
    "cosine",
    "fit",
    "pack",
    "vectors_before",
]
