"""The fast memories: what every event changes at once, in bounded memory."""

from .activation import activation
from .error_memory import BLOCK, ErrorMemory
from .kernels import Few
from .memory import Context, FastMemory, LoadContext
from .sparse import spread

__all__ = ["BLOCK", "Context", "ErrorMemory", "FastMemory", "Few", "LoadContext", "activation", "spread"]
