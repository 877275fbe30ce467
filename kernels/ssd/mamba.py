"""The scan by mamba-ssm's Triton kernels (Dao and Gu, arXiv 2405.21060), where that package is installed."""

from importlib import import_module
from typing import Any

import torch

__all__ = ["ssd_mamba"]

_CHUNK = 64


def ssd_mamba(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` and the final state, gradients included; on a GPU; shapes as in ``ssd``.

    Heads share B and C, which mamba-ssm calls one group. Raises ``ValueError`` where the package or a GPU is missing.
    """
    try:
        # its top level needs a CUDA extension, this module does not
        peer: Any = import_module("mamba_ssm.ops.triton.ssd_combined")
    except ImportError as error:
        raise ValueError(
            f"backend 'mamba' needs the package mamba-ssm, which cannot be imported here ({error}); use 'triton'"
        ) from None
    if x.device.type != "cuda":
        raise ValueError(f"backend 'mamba' needs a GPU, got tensors on {x.device}; use 'chunk'")
    y, final = peer.mamba_chunk_scan_combined(
        x, dt, A, B.unsqueeze(2), C.unsqueeze(2), _CHUNK, initial_states=state, return_final_states=True
    )
    return y, final.to(state.dtype)
