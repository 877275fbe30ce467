"""Kernels: one folder per operator, each with a naive truth and its fast paths.

``ssd`` is the state space scan, ``conv`` the causal depthwise convolution, ``block`` the fused step of whole layers
over a slab of states, ``scalar`` what compiled code shares. Nothing here knows of users, items or events.
"""

from .conv import conv
from .ssd import ssd

__all__ = ["conv", "ssd"]
