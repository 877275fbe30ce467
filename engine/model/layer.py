"""One layer of the streaming model: whole sequences by `StreamingLayer.forward`, one event by `StreamingLayer.step`.

Both compute the same numbers. The step is why a user's state costs the same at any length of history: all that a layer
keeps of the events so far is the scan's matrix S and the inputs of the last K - 1 events. It is plain torch, and the
truth that the fused kernels are tested against.

| letter | meaning | default |
|---|---|---|
| b, T | sequences, events of all sequences one after another | |
| d | width of the model | 64 |
| h, p, e | heads, channels per head, e = h p | 4, 32, 128 |
| n | state size of a channel | 32 |
| w, K | convolved channels w = e + 2 n, filter width | 192, 4 |

With phi_t the features of the gap before event t (``time.py``; zeros at the start token),

    z, x, B, C, s = W_in a + b_in           (x, B, C) = silu(conv(x, B, C))       (gamma, beta) = MLP(phi)
    Delta = softplus(s (1 + gamma) + beta + b)
    S_t = exp(Delta A) S_{t-1} + Delta x B^T            y = S_t C + D x
    o = W_out rms(y silu(z)) + b_out        c = LN(o + a)       a' = LN(W_2 hardswish(W_1 c + b_1) + b_2 + c; 1e-12)

(`c = LN(o)` when there is one layer only.) TiM4Rec, arXiv 2409.16182, made causal; the scan is that of Mamba-2,
arXiv 2405.21060.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional as F

from ...kernels import conv, ssd
from ...kernels.block.train import LayerParameters
from ...kernels.block.train import layer as fused_layer
from ..config import ModelConfig
from .initial import draw_scan
from .time import FEATURES

__all__ = ["FFN_EPS", "LayerState", "StreamingLayer", "TimeMLP"]

FFN_EPS = 1e-12
# maps values to the values that are left of them
Drop = Callable[[torch.Tensor], torch.Tensor]


class LayerState(NamedTuple):
    """All that a layer keeps of b sequences; a value: `StreamingLayer.step` returns another one."""

    # S (b, h, p, n)
    scan: torch.Tensor
    # (b, K - 1, w): inputs of the convolution at the last events, the oldest first
    window: torch.Tensor

    @classmethod
    def empty(cls, batch: int, layer: "StreamingLayer") -> Self:
        """Return the state before the start token, of ``batch`` sequences: zeros."""
        w, taps = layer.conv_weight.shape
        weight = layer.conv_weight
        return cls(
            weight.new_zeros(batch, layer.heads, layer.head_dim, layer.d_state), weight.new_zeros(batch, taps - 1, w)
        )


class StreamingLayer(nn.Module):
    """Time-modulated scan block, then the feed-forward block, both post-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, h, n = config.d_model, config.heads, config.d_state
        e = h * config.head_dim
        w = e + 2 * n
        self.heads, self.head_dim, self.d_state = h, config.head_dim, n
        self.residual = config.layers > 1
        self.eps = config.norm_eps
        self.dropout = config.dropout
        self.in_proj = nn.Linear(d, e + w + h)
        self.conv_weight = nn.Parameter(torch.empty(w, config.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(w))
        self.dt_bias = nn.Parameter(torch.empty(h))
        self.A_log = nn.Parameter(torch.empty(h))
        self.D = nn.Parameter(torch.empty(h))
        self.gate_norm = nn.Parameter(torch.empty(e))
        self.out_proj = nn.Linear(e, d)
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.ffn_in = nn.Linear(d, 4 * d)
        self.ffn_out = nn.Linear(4 * d, d)
        self.ffn_norm = nn.LayerNorm(d, eps=FFN_EPS)
        self.time = TimeMLP(config.time_hidden, 2 * h) if config.time else None

    def step(self, a: torch.Tensor, phi: torch.Tensor, state: LayerState) -> tuple[torch.Tensor, LayerState]:
        """Map an event ``a`` (b, d), with gap features ``phi`` (b, 3), to the next layer's input (b, d), and the state.

        One event of each of b sequences; what `forward` gives at that event, without dropout.
        """
        z, new, raw = self._project(a)
        # causal depthwise convolution: the last K inputs, this one included
        inputs = torch.cat([state.window, new[:, None]], dim=1)  # (b, K, w)
        x, B, C = self._scan_inputs(F.silu(self.conv_bias + (inputs * self.conv_weight.T).sum(1)))
        dt = self._delta(raw, phi)  # (b, h)
        # what was remembered fades by exp(Delta A), what is new comes in by Delta
        fade = torch.exp(dt * -torch.exp(self.A_log))[..., None, None]
        scan = fade * state.scan + (dt[..., None] * x)[..., None] * B[:, None, None]  # (b, h, p, n)
        y = (scan @ C[:, None, :, None])[..., 0] + self.D[:, None] * x  # (b, h, p)
        return self._output(a, z, y), LayerState(scan, inputs[:, 1:])

    def forward(
        self, a: torch.Tensor, phi: torch.Tensor, bounds: torch.Tensor, drop: Drop, backend: str = "auto"
    ) -> torch.Tensor:
        """Map ``a`` (T, d) and the gap features ``phi`` (T, 3) to the next layer's input (T, d).

        ``bounds`` (s + 1) says where the sequences begin and end; ``drop`` is called for the three dropouts, in order.
        """
        z, new, raw = self._project(a)
        convolved, _ = conv(
            new[None],
            self.conv_weight,
            self.conv_bias,
            cu_seqlens=bounds,
            backend="naive" if backend == "naive" else "auto",
        )
        # under autocast the projection is narrower than the filter, and the scan reads what the projection gave
        x, B, C = self._scan_inputs(convolved.to(z.dtype))  # (1, T, ...)
        dt = self._delta(raw, phi)[None]
        y, _ = ssd(x, dt, -torch.exp(self.A_log), B, C, self.D, cu_seqlens=bounds, backend=backend)
        return self._output(a, z, y[0], drop)

    def _project(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # z (..., e), inputs of the convolution (..., w), s (..., h)
        e = self.heads * self.head_dim
        z, new, raw = torch.split(self.in_proj(a), [e, e + 2 * self.d_state, self.heads], dim=-1)
        return z, new, raw

    def _scan_inputs(self, convolved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # x (..., h, p), B (..., n), C (..., n)
        x, B, C = torch.split(convolved, [self.heads * self.head_dim, self.d_state, self.d_state], dim=-1)
        return x.reshape(*x.shape[:-1], self.heads, self.head_dim), B, C

    def _delta(self, raw: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        # Delta (..., h): how far the scan moves at an event, modulated by the time since the one before
        if self.time is not None:
            gamma, beta = torch.chunk(self.time(phi), 2, dim=-1)
            raw = raw * (1 + gamma) + beta
        return F.softplus(raw + self.dt_bias)

    def _output(
        self, a: torch.Tensor, z: torch.Tensor, y: torch.Tensor, drop: Drop = lambda values: values
    ) -> torch.Tensor:
        v = (y.flatten(-2) * F.silu(z)).to(self.gate_norm.dtype)
        v = F.rms_norm(v, (self.heads * self.head_dim,), self.gate_norm, self.eps)
        o = drop(self.out_proj(v))
        c: torch.Tensor = self.norm(o + a if self.residual else o)
        f = drop(F.hardswish(self.ffn_in(c)))
        f = drop(self.ffn_out(f))
        out: torch.Tensor = self.ffn_norm(f + c)
        return out

    def fused(
        self, a: torch.Tensor, phi: torch.Tensor, bounds: torch.Tensor, dropout: float, seed: int
    ) -> torch.Tensor:
        """Do what `forward` does by compiled code; float32 on the CPU, dropout by ``seed``."""
        parameters = LayerParameters(
            self.in_proj.weight,
            self.in_proj.bias,
            self.conv_weight,
            self.conv_bias,
            self.dt_bias,
            self.A_log,
            self.D,
            self.gate_norm,
            self.out_proj.weight,
            self.out_proj.bias,
            self.norm.weight,
            self.norm.bias,
            self.ffn_in.weight,
            self.ffn_in.bias,
            self.ffn_out.weight,
            self.ffn_out.bias,
            self.ffn_norm.weight,
            self.ffn_norm.bias,
        )
        modulation = a.new_zeros(len(a), 2 * self.heads) if self.time is None else self.time(phi)
        return fused_layer(
            a,
            modulation,
            bounds,
            parameters,
            residual=self.residual,
            norm_eps=self.eps,
            ffn_eps=FFN_EPS,
            dropout=dropout,
            seed=seed,
        )

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values of the parameters that are not linear maps."""
        nn.init.uniform_(self.conv_weight, -0.5, 0.5, generator=generator)
        nn.init.uniform_(self.conv_bias, -0.5, 0.5, generator=generator)
        draw_scan(self.A_log, self.dt_bias, self.D, self.gate_norm, generator)


class TimeMLP(nn.Module):
    """Two linear maps with SiLU between them, from the gap features to what modulates."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, phi: torch.Tensor) -> torch.Tensor:
        """Map gap features (..., 3) to what modulates (..., out)."""
        # few products, whose inputs differ in digits that a narrow type does not have
        with torch.autocast(phi.device.type, enabled=False):
            out: torch.Tensor = self.last(F.silu(self.first(phi)))
        return out
