"""The command line: ``recurra``."""

from .app import main

__all__ = ["main"]
