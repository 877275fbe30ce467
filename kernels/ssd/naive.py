"""The scan as the recurrence reads: one position at a time, in any floating dtype. The truth of this folder."""

import torch

__all__ = ["ssd_naive"]


def ssd_naive(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``y`` (b, l, h, p), without the D term, and the state after the last position; shapes as in ``ssd``."""
    ys = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)  # (b, h)
        added = torch.einsum("bh,bhp,bn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = decay[..., None, None] * state + added
        ys.append(torch.einsum("bhpn,bn->bhp", state, C[:, t]))
    return (torch.stack(ys, dim=1) if ys else torch.zeros_like(x)), state
