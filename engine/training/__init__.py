"""Training: a program of its own that turns the log into gated versions, the engine's side of it, and its parts."""

from .compatibility import cross_version_recall
from .fit import Fitted, fit
from .learner import Learner, Step, cosine
from .loss import Sampler, at_events, vectors_before
from .protocol import TrainReport
from .strategies import STRATEGIES, Material, Setting, Strategy, create_strategy
from .supervisor import Trainer
from .windows import Batch, UserLog, Windows, batches, pack

__all__ = [
    "STRATEGIES",
    "Batch",
    "Fitted",
    "Learner",
    "Material",
    "Sampler",
    "Setting",
    "Step",
    "Strategy",
    "TrainReport",
    "Trainer",
    "UserLog",
    "Windows",
    "at_events",
    "batches",
    "cosine",
    "create_strategy",
    "cross_version_recall",
    "fit",
    "pack",
    "vectors_before",
]
