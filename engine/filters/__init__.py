"""Filters over items: the ``where`` expression, its evaluation by columns, and the masks that are kept."""

from .expression import compile_filter
from .masks import Masks, Selection

__all__ = ["Masks", "Selection", "compile_filter"]
