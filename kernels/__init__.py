"""Kernels: one folder per operator, each with a naive truth and its fast paths.

``ssd`` is the state space scan, ``conv`` the causal depthwise convolution, ``cross_entropy`` the loss over a table of
vectors, ``block`` the fused step of whole layers over a slab of states, ``scalar`` what compiled code shares. Nothing
here knows of users, items or events.
"""

from .conv import conv
from .cross_entropy import Weighted, cross_entropy
from .ssd import ssd

__all__ = ["Weighted", "conv", "cross_entropy", "ssd"]
