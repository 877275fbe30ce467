"""The fast memories: what every event changes at once, in bounded memory."""

from .activation import activation
from .error_memory import BLOCK, ErrorMemory, Moment
from .memory import Context, FastMemory, LoadContext
from .sparse import spread
from .tables import Few

__all__ = ["BLOCK", "Context", "ErrorMemory", "FastMemory", "Few", "LoadContext", "Moment", "activation", "spread"]
