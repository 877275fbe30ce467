"""Weights on disk (safetensors) and in the form that the step over a slab of states reads them."""

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ...kernels.arrays import Float32s
from ...kernels.block import LayerWeights
from ...kernels.jit import jit
from ..config import ModelConfig
from ..errors import VersionError
from ..events import Features
from .layer import FFN_EPS, StreamingLayer
from .streaming import StreamingModel, searched

__all__ = ["StepWeights", "load", "save"]

_FORMAT = "1"


def save(model: StreamingModel, path: str | Path) -> None:
    """Write parameters, vocabulary size and configuration to one safetensors file."""
    meta = {"format": _FORMAT, "items": str(model.items), "config": msgspec.json.encode(model.config).decode()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, str(path), metadata=meta)


def load(path: str | Path) -> StreamingModel:
    """Read a model written by ``save``, in evaluation mode; ``VersionError`` if anything is not as it must be."""
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise VersionError(f"cannot read the weights {path}: {error}") from None
    if meta.get("format") != _FORMAT:
        raise VersionError(f"{path}: weights of format {_FORMAT} expected, got {meta.get('format')!r}")
    try:
        config = msgspec.json.decode(meta["config"], type=ModelConfig)
        features = None
        if "attributes.table" in tensors:
            features = Features(tensors["attributes.buckets"].numpy(), tensors["attributes.starts"].numpy())
        model = StreamingModel(config, int(meta["items"]), features=features)
    except (KeyError, ValueError, RuntimeError, msgspec.DecodeError) as error:
        raise VersionError(f"{path}: the configuration in the file is not usable: {error}") from None
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(want.keys() | got.keys()):
        if want.get(name) != got.get(name):
            raise VersionError(f"{path}: tensor {name} must have shape {want.get(name)}, got {got.get(name)}")
    check_finite(tensors, str(path))
    model.load_state_dict(tensors)
    return model.eval()


def check_finite(tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Raise ``VersionError`` naming the first tensor that holds a value which is not finite."""
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise VersionError(f"{origin}: tensor {name} has {bad} of {tensor.numel()} values that are not finite")


class QueryWeights(NamedTuple):
    """What modulates a vector for the time of the query."""

    time_in: Float32s  # (3, m)
    time_in_bias: Float32s  # (m)
    time_out: Float32s  # (m, 2 d): gamma, beta
    time_out_bias: Float32s  # (2 d)

    def modulate(self, vectors: Float32s, phi: Float32s) -> Float32s:
        """Return the vectors (R, d) for queries after gaps with the features ``phi`` (R, 3)."""
        return _modulated(vectors, phi, self.time_in, self.time_in_bias, self.time_out, self.time_out_bias)


@jit
def _modulated(
    vectors: Float32s,
    phi: Float32s,
    time_in: Float32s,
    time_in_bias: Float32s,
    time_out: Float32s,
    time_out_bias: Float32s,
) -> Float32s:
    # one vector is asked for at a time: a dozen of numpy's operations cost more than their arithmetic
    d = vectors.shape[1]
    modulated = np.empty_like(vectors)
    for r in range(vectors.shape[0]):
        change = time_out_bias.copy()
        for m in range(time_in_bias.size):
            u = time_in_bias[m]
            for f in range(phi.shape[1]):
                u += phi[r, f] * time_in[f, m]
            u /= np.float32(1.0) + np.exp(-u)
            for c in range(change.size):
                change[c] += u * time_out[m, c]
        for c in range(d):
            modulated[r, c] = vectors[r, c] * (np.float32(1.0) + change[c]) + change[d + c]
    return modulated


class NewItems(NamedTuple):
    """What the vectors of items that the version does not know are made of."""

    buckets: Float32s  # (B, d)
    unknown: Float32s  # (d): the unknown item's vector before the input norm
    norm: Float32s  # (d)
    norm_bias: Float32s  # (d)
    length: float  # of what is searched; 0: as it is

    def vectors(self, features: Features, eps: float) -> tuple[Float32s, Float32s]:
        """Return the vectors (items, d) by which such items are read, after the input norm, and searched."""
        parts = np.zeros((len(features.starts) - 1, self.buckets.shape[1]), np.float32)
        for part, start, stop in zip(parts, features.starts[:-1], features.starts[1:], strict=True):
            if stop > start:
                part[:] = self.buckets[features.buckets[start:stop]].sum(axis=0) / np.sqrt(stop - start)
        search = self.unknown + parts
        centred = search - search.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + eps)
        read = centred / scale * self.norm + self.norm_bias
        return read, searched(torch.from_numpy(search), self.length).numpy()


class StepWeights(NamedTuple):
    """Everything that ``StateSlab`` needs of one version, as numpy float32; immutable."""

    config: ModelConfig
    items: int
    read_table: Float32s  # (V + 2, d): item vectors after the input norm; then the unknown item, the start token
    item_table: Float32s  # (V, d): search vectors
    layers: LayerWeights
    query: QueryWeights | None
    new_items: NewItems | None
    norm_eps: float
    ffn_eps: float
    gap_clip_s: float

    @classmethod
    def of(cls, model: StreamingModel) -> "StepWeights":
        """Take the weights out of a model; raises ``VersionError`` if a value is not finite."""
        check_finite(model.state_dict(), "model")
        with torch.no_grad():
            vectors = model.vectors(torch.arange(model.items + 2, device=model.embedding.device))
            norm = model.in_norm
            new_items = None
            if model.attributes is not None:
                unknown = model.embedding[model.unknown_row]
                table, bias = _array(model.attributes.table), _array(norm.bias)
                new_items = NewItems(table, _array(unknown), _array(norm.weight), bias, model.config.item_length)
            stacked = zip(*(_layer(layer) for layer in model.layers if isinstance(layer, StreamingLayer)), strict=True)
            query = None if model.query_time is None else QueryWeights(*map(_array, _mlp(model.query_time)))
            return cls(
                config=model.config,
                items=model.items,
                read_table=_array(norm(vectors)),
                item_table=_array(searched(vectors[: model.items], model.config.item_length)),
                layers=LayerWeights(*(_array(torch.stack(parts)) for parts in stacked)),
                query=query,
                new_items=new_items,
                norm_eps=model.config.norm_eps,
                ffn_eps=FFN_EPS,
                gap_clip_s=float(model.gap_clip_s),
            )


def _layer(layer: StreamingLayer) -> tuple[torch.Tensor, ...]:
    h = layer.heads
    zero = layer.D.new_zeros
    time = (zero(3, 1), zero(1), zero(1, 2 * h), zero(2 * h)) if layer.time is None else _mlp(layer.time)
    return (
        layer.in_proj.weight.T,
        layer.in_proj.bias,
        layer.conv_weight.T,
        layer.conv_bias,
        *time,
        layer.dt_bias,
        -torch.exp(layer.A_log),
        layer.D,
        layer.gate_norm,
        layer.out_proj.weight.T,
        layer.out_proj.bias,
        layer.norm.weight,
        layer.norm.bias,
        layer.ffn_in.weight.T,
        layer.ffn_in.bias,
        layer.ffn_out.weight.T,
        layer.ffn_out.bias,
        layer.ffn_norm.weight,
        layer.ffn_norm.bias,
    )


def _mlp(module: nn.Module) -> tuple[torch.Tensor, ...]:
    state = module.state_dict()
    return state["first.weight"].T, state["first.bias"], state["last.weight"].T, state["last.bias"]


def _array(tensor: torch.Tensor) -> Float32s:
    array: Float32s = np.array(tensor.detach().cpu().float().numpy(), order="C", copy=True)
    array.flags.writeable = False
    return array
