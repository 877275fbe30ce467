"""Streaming model: TiM4Rec (arXiv 2409.16182) made causal, so that it has an exact recurrence.

| letter | meaning | default |
|---|---|---|
| b, l, t | rows of a batch, positions of a row, one position | |
| V | items of the version; row V is the unknown item, row V + 1 the start token | |
| d | width of the model | 64 |
| h, p, e | heads, channels per head, e = h p | 4, 32, 128 |
| n | state size of a channel | 32 |
| w, K | convolved channels w = e + 2 n, filter width | 192, 4 |
| r | columns of the input projection (z, x, B, C, dt): 2 e + 2 n + h | 324 |

A row is read from its anchor: first the start token, then the events. The equations of a layer are in ``layer.py``.
Input of the first layer: LN of the item's vector; the same vectors, without the norm, are the output's, all of one
length if the configuration has one. The vector asked for at a later time is a (1 + gamma_q) + beta_q with
(gamma_q, beta_q) a function of the features of the gap up to the query.

Initial values: linear maps and item vectors normal with deviation 0.02, biases 0; last map of both time functions 0, so
that training starts from the plain scan and from unmodulated queries; convolution uniform in +-0.5, its bias too; A
uniform in -16..-1; D = 1; b = softplus^-1 of a log-uniform value in 0.001..0.1; norms 1 and 0.
"""

from collections.abc import Iterable
from functools import partial
from typing import cast

import msgspec
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...kernels.block.train import supported
from ...kernels.block.train_norm import drop_norm
from ..config import ModelConfig
from ..events import Features
from .attributes import ItemAttributes
from .base import SequenceModel
from .initial import draw_linear
from .layer import StreamingLayer, TimeMLP
from .time import FEATURES, gap_features

__all__ = ["StreamingModel", "searched"]


class StreamingModel(SequenceModel):
    """The whole model over a vocabulary of ``items`` items.

    ``generator`` draws the initial values; None means a generator with seed 0. ``features`` of the items, if they have
    any, are read unless ``config.attributes`` is 0; None means that nothing is known of them.
    """

    streams = True

    gap_clip_s: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        items: int,
        *,
        features: Features | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(config, items)
        self.embedding = nn.Parameter(torch.empty(items + 2, config.d_model))
        self.attributes: ItemAttributes | None = None
        if config.attributes and features is not None and len(features.buckets):
            self.attributes = ItemAttributes(config.attributes, config.d_model, items, features)
        self.in_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.layers = nn.ModuleList(StreamingLayer(config) for _ in range(config.layers))
        self.query_time = TimeMLP(config.time_hidden, 2 * config.d_model) if config.query_time else None
        # longest gap that a live query is modulated for: the trainer sets the 99.9th percentile of what it saw
        self.register_buffer("gap_clip_s", torch.tensor(30 * 86_400.0, dtype=torch.float64))
        self._reset(generator or torch.Generator().manual_seed(0))

    @property
    def start_row(self) -> int:
        """Row of the start token."""
        return self.items + 1

    def forward(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *,
        backend: str = "auto",
    ) -> torch.Tensor:
        """Hidden vectors (b, l + 1, d) of rows read from their anchor; see the base class and `encode`."""
        b, length = items.shape
        ends = items.new_full((b,), length) if lengths is None else lengths.to(items.device)
        inside = torch.arange(-1, length, device=items.device) < ends[:, None]
        hidden = items.new_zeros((b, length + 1, self.config.d_model), dtype=self.embedding.dtype)
        packed = self.encode(
            items[inside[:, 1:]], times_ms[inside[:, 1:]], F.pad(ends.cumsum(0), (1, 0)), backend=backend
        )
        return hidden.masked_scatter(inside[..., None], packed)

    def encode(
        self,
        items: torch.Tensor,
        times_ms: torch.Tensor,
        offsets: torch.Tensor,
        *,
        backend: str = "auto",
        seed: int | None = None,
    ) -> torch.Tensor:
        """Hidden vectors (T + s, d) of s sequences one after another, each read from its anchor; see the base class.

        The start token is put in front of each here. Training mode replaces items by the unknown one at
        ``config.unknown_rate`` and drops values at ``config.dropout``, both as ``seed`` says.
        """
        device = items.device
        # where sequences end decides shapes: it is known on the CPU, so that a GPU is not waited for
        offsets = offsets.cpu()
        count = torch.arange(len(offsets))
        bounds = offsets + count
        place = torch.repeat_interleave(count[1:], offsets.diff()) + torch.arange(len(items))
        place = place.to(device, non_blocking=True)
        rows = items.new_full((int(bounds[-1]),), self.start_row).index_copy(0, place, items)
        phi = self.embedding.new_zeros(len(rows), FEATURES)
        phi = phi.index_copy(0, place, gap_features(times_ms, offsets).to(phi, non_blocking=True))
        lost = None
        if self.training:
            seed = int(torch.randint(1 << 62, ())) if seed is None else seed
            generator = torch.Generator(device).manual_seed(seed)
            lost = torch.rand(rows.shape, generator=generator, device=device) < self.config.unknown_rate
            lost = lost & (rows != self.start_row)
        vectors = self.vectors(rows, lost)
        can = supported(vectors, self.config.d_conv, self.config.d_state)
        if backend == "numba" or (backend == "auto" and can):
            return self._fused(vectors, phi, bounds, seed or 0)
        drop = partial(_drop, self.config.dropout, generator) if self.training else _keep
        a: torch.Tensor = self.in_norm(drop(vectors))
        for layer in self.layers:
            a = layer(a, phi, bounds, drop, backend)
        return a

    def _fused(self, vectors: torch.Tensor, phi: torch.Tensor, bounds: torch.Tensor, seed: int) -> torch.Tensor:
        rate = self.config.dropout if self.training else 0.0
        first, *seeds = np.random.SeedSequence(seed).generate_state(1 + len(self.layers), np.uint64).tolist()
        norm = self.in_norm
        a = drop_norm(vectors, norm.weight, norm.bias, eps=norm.eps, dropout=rate, seed=first)
        layers = cast(Iterable[StreamingLayer], self.layers)
        for layer, key in zip(layers, seeds, strict=True):
            a = layer.fused(a, phi, bounds, rate, key)
        return a

    def query(self, hidden: torch.Tensor, phi: torch.Tensor | None) -> torch.Tensor:
        """Modulate ``hidden`` (..., d) for a query after a gap with features ``phi`` (..., 3).

        The features of the gap from event t to event t + 1 are row t of ``gap_features`` (counted from 0). None, or a
        model without query time, gives ``hidden`` unchanged.
        """
        if self.query_time is None or phi is None:
            return hidden
        gamma, beta = torch.chunk(self.query_time(phi.to(hidden.dtype)), 2, dim=-1)
        modulated: torch.Tensor = hidden * (1 + gamma) + beta
        return modulated

    def vectors(self, rows: torch.Tensor, lost: torch.Tensor | None = None) -> torch.Tensor:
        """Item vectors (..., d), before the norm, of version rows (...); V is the unknown item.

        Items are read as a new item with their attributes would be where ``lost`` (...) says so.
        """
        ids = rows if lost is None else torch.where(lost, self.unknown_row, rows)
        vectors = F.embedding(ids, self.embedding)
        return vectors if self.attributes is None else vectors + self.attributes(rows)

    def item_table(self) -> torch.Tensor:
        """Search vectors (V, d): the score of an item is the inner product with the user's vector.

        A model with attributes learns to find new items by them: in training mode some items are as if new.
        """
        if self.attributes is None:
            return searched(self.embedding[: self.items], self.config.item_length)
        lost = None
        if self.training and self.config.unknown_rate > 0:
            lost = torch.rand(self.items, device=self.embedding.device) < self.config.unknown_rate
            lost &= self.attributes.described
        vectors = self.vectors(torch.arange(self.items, device=self.embedding.device), lost)
        return searched(vectors, self.config.item_length)

    def grown(
        self,
        items: int,
        *,
        attributes: int = 0,
        features: Features | None = None,
        generator: torch.Generator | None = None,
    ) -> "StreamingModel":
        """Return a copy for a vocabulary that has ``items - self.items`` more items at its end, with fresh vectors.

        ``features`` are those of the whole new vocabulary, among ``attributes`` buckets unless the model has a number.
        """
        if items < self.items:
            raise ValueError(f"a vocabulary only grows: {self.items} items now, {items} asked for")
        config = msgspec.structs.replace(self.config, attributes=self.config.attributes or attributes)
        other = StreamingModel(config, items, features=features, generator=generator).to(self.embedding)
        # attributes may be new, or be gone with the catalogue; features are given, not learnt
        fresh = other.state_dict()
        given = {"attributes.buckets", "attributes.starts"}
        state = {name: tensor for name, tensor in self.state_dict().items() if name in fresh.keys() - given}
        table = other.embedding.detach().clone()
        table[: self.items] = state["embedding"][: self.items]
        table[items:] = state["embedding"][self.items :]
        other.load_state_dict({**fresh, **state, "embedding": table})
        return other

    def _reset(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.embedding, std=0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_linear(module, generator)
        for module in self.modules():
            if isinstance(module, TimeMLP):
                nn.init.zeros_(module.last.weight)
            if isinstance(module, StreamingLayer):
                module.reset(generator)


def searched(vectors: torch.Tensor, length: float) -> torch.Tensor:
    """Return what is searched of item vectors (..., d) before the norm: of one ``length`` each, unchanged if it is 0.

    With one length the score is a cosine but for the user's vector (NISER, arXiv 1909.04276).
    """
    return F.normalize(vectors, dim=-1) * length if length else vectors


def _keep(values: torch.Tensor) -> torch.Tensor:
    return values


def _drop(rate: float, generator: torch.Generator, values: torch.Tensor) -> torch.Tensor:
    """Dropout that draws from the given generator."""
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= rate
    return values * kept / (1 - rate)
