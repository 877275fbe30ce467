"""States of users under one version: the anchor, slabs on the CPU and on a GPU, and which user has which slot."""

from .anchor import anchor
from .cpu import StateSlab
from .create import create_slab
from .residency import Residency
from .slab import Slab

__all__ = ["Residency", "Slab", "StateSlab", "anchor", "create_slab"]
