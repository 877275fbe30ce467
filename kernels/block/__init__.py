"""The fused step of whole layers over a slab of states: convolution, gates, scan, norms and feed-forward per event.

The truth of this operator is the model's own forward pass with the naive scan; there is no second copy of it here.
"""

from .step import Scratch, layers_step
from .weights import LayerWeights

__all__ = ["LayerWeights", "Scratch", "layers_step"]
