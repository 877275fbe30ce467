"""Whole layers: the fused step over a slab of states, and their training on the CPU.

The truth of both is the model's own forward pass with the naive scan; there is no second copy of it here.
"""

from .product import aligned
from .step import Scratch, layers_step
from .train import LayerParameters, layer, layer_masks, supported
from .train_norm import drop_norm
from .weights import LayerWeights, PackedWeights

__all__ = [
    "LayerParameters",
    "LayerWeights",
    "PackedWeights",
    "Scratch",
    "aligned",
    "drop_norm",
    "layer",
    "layer_masks",
    "layers_step",
    "supported",
]
