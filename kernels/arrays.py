"""Array types by their element, one name each for the whole project; shapes are said where arrays are documented."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bools", "Bytes", "Float32s", "Float64s", "Floating", "Int32s", "Int64s"]

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Floating = NDArray[np.floating]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
