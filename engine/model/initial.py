"""Initial values that models share."""

import math

import torch
from torch import nn

__all__ = ["draw_linear", "draw_scan"]

_A_MAX = 16.0
_DT_MIN, _DT_MAX = 0.001, 0.1


def draw_linear(module: nn.Linear, generator: torch.Generator) -> None:
    """Draw a linear map: normal with deviation 0.02, its bias 0."""
    nn.init.normal_(module.weight, std=0.02, generator=generator)
    nn.init.zeros_(module.bias)


def draw_scan(
    A_log: torch.Tensor, dt_bias: torch.Tensor, D: torch.Tensor, gate_norm: torch.Tensor, generator: torch.Generator
) -> None:
    """Draw what a scan has per head: A uniform in -16..-1, step sizes log-uniform in 0.001..0.1; D and norm are 1."""
    nn.init.uniform_(A_log, 1.0, _A_MAX, generator=generator)
    nn.init.uniform_(dt_bias, math.log(_DT_MIN), math.log(_DT_MAX), generator=generator)
    with torch.no_grad():
        A_log.log_()
        dt = dt_bias.exp()
        # the inverse of softplus
        dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
    nn.init.ones_(D)
    nn.init.ones_(gate_norm)
