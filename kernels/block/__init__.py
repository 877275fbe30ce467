"""The fused step of whole layers over a slab of states: convolution, gates, scan, norms and feed-forward per event.

The truth of this operator is the model's own forward pass with the naive scan; there is no second copy of it here.
"""

from .product import aligned
from .step import Scratch, layers_step
from .train import LayerParameters, drop_norm, layer, layer_masks, supported
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
