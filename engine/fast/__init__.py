"""The fast memory: counts of items and pairs of items, changed by every event."""

from .memory import Context, FastMemory, LoadContext

__all__ = ["Context", "FastMemory", "LoadContext"]
