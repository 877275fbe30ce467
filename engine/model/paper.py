"""TiM4Rec as published (arXiv 2409.16182 and its code), for comparisons: reads whole padded rows and cannot stream.

Letters as in `streaming.py`, and L = `config.max_length`: every row is padded at its end to L events, item "padding" at
time 0. With T the times in seconds,

    D_0 = 0, D_t = T_t - T_{t-1} for all L places        tau_0 = LN(D), the same for every head (b, h, L)

A layer makes of its input a and of tau, with `act` hardswish or, with `conv_silu`, SiLU:

    s = W_2 silu(W_1 tau + b_1) + b_2                    W_1, W_2 (L, L): along the row
    q = act(conv(act(conv(tau s))))                      one causal filter per head
    g = sigma(w_g tau + b_g)                             one per row and head, or with `p2p_residual` per place
    tau' = LN(g tau + (1 - g) q)                         what the next layer gets

    z, x, B, C, r = W_in a + b_in                        (x, B, C) = act(conv(x, B, C))
    Delta = softplus(r q + b)                            softplus(r + b) without time
    S_t = exp(Delta A) S_{t-1} + Delta x B^T             y = S_t C + D x
    o = W_out rms(y silu(z)) + b_out                     c = LN(o + a), with one layer LN(o)
    a' = LN(W_4 hardswish(W_3 c + b_3) + b_4 + c; 1e-12)

The row's LayerNorms, maps and gate see the padding's jump to time 0 and the events after a place: only the vector of
the last event says what it should, and that vector too depends on where the padding begins.

Padding is row 0 of the table of vectors, item i row i + 1, the unknown item the last row. In the published code the
padding is one more candidate of the training loss, never right: `official_table` has it, `item_table` has not.

Dropout: on the item vectors and on D, before their norms; on the layer's o; inside and after the feed-forward block;
with `time_dropout` on what W_1 and w_g read, not on tau elsewhere.

Initial values: linear maps and item vectors normal with deviation 0.02, biases 0; convolutions normal with deviation
sqrt(2 / (K channels)), biases 0, or with `kaiming_init` off uniform within 1 / sqrt(K), biases too; A, D, b and the
norms as in `streaming.py`.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ...kernels import conv, ssd
from ..config import ModelConfig
from .base import SequenceModel
from .initial import draw_linear, draw_scan
from .layer import FFN_EPS
from .rows import check_length, columns

__all__ = ["PaperModel"]


class PaperModel(SequenceModel):
    """The published model over a vocabulary of ``items`` items; rows of at most ``config.max_length`` events.

    ``generator`` draws the initial values; None means a generator with seed 0.
    """

    causal = False

    def __init__(self, config: ModelConfig, items: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, items)
        self.embedding = nn.Parameter(torch.empty(items + 2, config.d_model))
        self.in_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.time_norm = nn.LayerNorm(config.max_length, eps=config.norm_eps) if config.time else None
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self._reset(generator or torch.Generator().manual_seed(0))

    def forward(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        backend: str = "auto",
    ) -> torch.Tensor:
        """Hidden vectors (b, l + 1, d); only the column at the row's length is a user vector, column 0 is zeros.

        Times become seconds in the model's own precision: in single, steps of 64 or 128 s at present dates, as in the
        published runs. Raises ``ValueError`` for rows longer than ``config.max_length``.
        """
        check_length(items, self.config.max_length)
        b, length = items.shape
        ends = items.new_full((b,), length) if lengths is None else lengths.to(items.device)
        inside = torch.arange(length, device=items.device) < ends[:, None]
        rows = torch.where(inside, items + 1, 0)
        a: torch.Tensor = self.in_norm(self._drop(F.embedding(rows, self.embedding)))
        tau = self._tau(torch.where(inside, times_ms.double() / 1000.0, 0.0))
        for layer in self.layers:
            a, tau = layer(a, tau, backend)
        return columns(a, lengths)

    def item_table(self) -> torch.Tensor:
        """Search vectors (V, d): the score of an item is the inner product with the user's vector."""
        return self.embedding[1 : self.items + 1]

    def official_table(self) -> torch.Tensor:
        """Vectors (V + 1, d) of the published code's candidates: the padding, then the items."""
        return self.embedding[: self.items + 1]

    def _tau(self, seconds: torch.Tensor) -> torch.Tensor | None:
        """Return tau_0 (b, h, L) of the times ``seconds`` (b, l), 0 in the padding; None without time."""
        if self.time_norm is None:
            return None
        row = F.pad(seconds.to(self.embedding.dtype), (0, self.config.max_length - seconds.shape[1]))
        steps = F.pad(row.diff(dim=1), (1, 0))
        tau: torch.Tensor = self.time_norm(self._drop(steps))
        return tau[:, None].expand(-1, self.config.heads, -1)

    def _drop(self, values: torch.Tensor) -> torch.Tensor:
        return F.dropout(values, self.config.dropout, self.training)

    def _reset(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embedding, std=0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_linear(module, generator)
            if isinstance(module, _Conv | _Layer):
                module.reset(generator)


class _Layer(nn.Module):
    """The time branch, the scan block and the feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, h, n = config.d_model, config.heads, config.d_state
        e = h * config.head_dim
        self.heads, self.d_state, self.eps, self.dropout = h, n, config.norm_eps, config.dropout
        self.residual = config.layers > 1
        self.in_proj = nn.Linear(d, 2 * e + 2 * n + h)
        self.conv = _Conv(config, e + 2 * n)
        self.time = _TimeBranch(config) if config.time else None
        self.dt_bias = nn.Parameter(torch.empty(h))
        self.A_log = nn.Parameter(torch.empty(h))
        self.D = nn.Parameter(torch.empty(h))
        self.gate_norm = nn.Parameter(torch.empty(e))
        self.out_proj = nn.Linear(e, d)
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.ffn_in = nn.Linear(d, 4 * d)
        self.ffn_out = nn.Linear(4 * d, d)
        self.ffn_norm = nn.LayerNorm(d, eps=FFN_EPS)

    def forward(
        self, a: torch.Tensor, tau: torch.Tensor | None, backend: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Map ``a`` (b, l, d) and ``tau`` (b, h, L) to those of the next layer.

        The scan looks back only: padding beyond the batch's longest row matters to the time branch alone.
        """
        e = self.out_proj.in_features
        z, xbc, r = torch.split(self.in_proj(a), [e, e + 2 * self.d_state, self.heads], dim=-1)
        x, B, C = torch.split(self.conv(xbc, backend), [e, self.d_state, self.d_state], dim=-1)
        if self.time is not None:
            # its inputs differ in digits that a narrow type does not have
            with torch.autocast(a.device.type, enabled=False):
                q, tau = self.time(tau, backend)
            r = r * q[:, : r.shape[1]]
        x = x.reshape(*x.shape[:-1], self.heads, -1)  # (b, l, h, p)
        dt = F.softplus(r + self.dt_bias)
        y, _ = ssd(x, dt, -torch.exp(self.A_log), B, C, self.D, backend=backend)
        v = F.rms_norm(y.flatten(-2) * F.silu(z), (e,), self.gate_norm, self.eps)
        o = F.dropout(self.out_proj(v), self.dropout, self.training)
        c: torch.Tensor = self.norm(o + a if self.residual else o)
        f = F.dropout(F.hardswish(self.ffn_in(c)), self.dropout, self.training)
        f = F.dropout(self.ffn_out(f), self.dropout, self.training)
        return self.ffn_norm(f + c), tau

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values of the scan's parameters."""
        draw_scan(self.A_log, self.dt_bias, self.D, self.gate_norm, generator)


class _TimeBranch(nn.Module):
    """From tau (b, h, L) to the factor q (b, L, h) of the step sizes and to the next layer's tau."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        length = config.max_length
        self.dropout = config.time_dropout
        self.scale_in = nn.Linear(length, length)
        self.scale_out = nn.Linear(length, length)
        self.conv_in = _Conv(config, config.heads)
        self.conv_out = _Conv(config, config.heads)
        self.gate = nn.Linear(length, length if config.p2p_residual else 1)
        self.norm = nn.LayerNorm(length, eps=config.norm_eps)

    def forward(self, tau: torch.Tensor, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return q and the next tau; the last layer's is not used."""
        s = self.scale_out(F.silu(self.scale_in(F.dropout(tau, self.dropout, self.training))))
        q = self.conv_out(self.conv_in((tau * s).transpose(1, 2), backend), backend)  # (b, L, h)
        g = torch.sigmoid(self.gate(F.dropout(tau, self.dropout, self.training)))  # (b, h, 1 or L)
        return q, self.norm(g * tau + (1 - g) * q.transpose(1, 2))


class _Conv(nn.Module):
    """Causal depthwise convolution over the row, then the activation."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.silu, self.kaiming = config.conv_silu, config.kaiming_init
        self.weight = nn.Parameter(torch.empty(channels, config.d_conv))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: torch.Tensor, backend: str) -> torch.Tensor:
        """Map (b, l, channels) to the same shape."""
        y, _ = conv(x, self.weight, self.bias, silu=self.silu, backend="naive" if backend == "naive" else "auto")
        return y if self.silu else F.hardswish(y)

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values."""
        channels, width = self.weight.shape
        if self.kaiming:
            # the published code counts the fan-in as if every channel were connected with every other
            nn.init.normal_(self.weight, std=math.sqrt(2 / (channels * width)), generator=generator)
            nn.init.zeros_(self.bias)
        else:
            bound = 1 / math.sqrt(width)
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)
