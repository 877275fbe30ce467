"""Kernels: one folder per operator, each with a naive truth and its fast paths.

``ssd`` is the state space scan, ``conv`` the causal depthwise convolution, ``mixer`` the fused step of both over a slab
of states, ``dense`` the pointwise steps between matrix products. Nothing here knows of users, items or events.
"""

from .conv import conv
from .ssd import ssd

__all__ = ["conv", "ssd"]
