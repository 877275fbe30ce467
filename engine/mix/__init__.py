"""The mixture: one ranking out of the scores of all parts, by what the stream has shown so far."""

from .lessons import Lessons
from .mix import Mix, Situation

__all__ = ["Lessons", "Mix", "Situation"]
