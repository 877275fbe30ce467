"""Training: a separate program that turns the log into gated versions, the engine's side of it, and its parts."""

from .compatibility import cross_version_recall
from .fit import Fitted, fit
from .gate import event_ranks
from .learner import Learner, Step, cosine
from .loss import Sampler, at_events, vectors_before
from .rounds import Round, train_round
from .strategies import STRATEGIES, FitContext, FitData, Strategy, create_strategy
from .supervisor import Trainer
from .windows import PackedWindows, UserLog, Windows, batches, last_windows, pack

__all__ = [
    "STRATEGIES",
    "FitContext",
    "FitData",
    "Fitted",
    "Learner",
    "PackedWindows",
    "Round",
    "Sampler",
    "Step",
    "Strategy",
    "Trainer",
    "UserLog",
    "Windows",
    "at_events",
    "batches",
    "cosine",
    "create_strategy",
    "cross_version_recall",
    "event_ranks",
    "fit",
    "last_windows",
    "pack",
    "train_round",
    "vectors_before",
]
