"""Buffers that are used again: fresh memory costs a page fault every 4 KiB, more than the work that is done in it."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["BufferPool", "as_array", "parts"]


class BufferPool:
    """Blocks of float32 on the CPU, used by one caller at a time; their contents mean nothing. Thread-safe.

    There are never more blocks than were in use at one time, each as large as the largest that was asked for since.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.free: list[torch.Tensor] = []

    def acquire(self, size: int) -> torch.Tensor:
        """Return a block of at least ``size`` values. One that is not released is simply forgotten."""
        with self._lock:
            block = self.free.pop() if self.free else None
        if block is not None and block.numel() >= size:
            return block
        # a block made in inference mode could never be written in training
        with torch.inference_mode(False):
            # some room, so that batches of about the same size find it large enough
            return torch.empty(size + size // 4)

    def release(self, block: torch.Tensor) -> None:
        """Give back ``block``, of which no part is in use any more."""
        with self._lock:
            self.free.append(block)


def parts(block: torch.Tensor, rows: int, *columns: int) -> list[torch.Tensor]:
    """Cut matrices (rows, columns) from the beginning of a block."""
    matrices, begin = [], 0
    for size in columns:
        matrices.append(block[begin : begin + rows * size].view(rows, size))
        begin += rows * size
    return matrices


def as_array(v: torch.Tensor) -> NDArray[np.float32]:
    """Return the values of a tensor on the CPU, without gaps between them."""
    array: NDArray[np.float32] = v.detach().contiguous().numpy()
    return array
