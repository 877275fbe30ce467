"""Generated streams: a world of titles for the demonstration, and streams whose next-item distribution is known."""

from .known import KINDS, Drift, SyntheticStream, Truth, kind_of, stream
from .world import World, generate

__all__ = ["KINDS", "Drift", "SyntheticStream", "Truth", "World", "generate", "kind_of", "stream"]
