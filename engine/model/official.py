"""Checkpoints of the published TiM4Rec (AlwaysFHao/TiM4Rec) as a `PaperModel`."""

from collections.abc import Mapping
from typing import Any

import torch

from ..config import ModelConfig
from ..errors import ConfigError, VersionError
from .paper import PaperModel

__all__ = ["load_official", "official_name"]

_OUTER = {"embedding": "item_embedding.weight", "in_norm": "in_layer_norm", "time_norm": "layer_norm_time"}
_INNER = {
    "in_proj": "ssd.in_proj",
    "conv": "ssd.conv1d",
    "time.scale_in": "ssd.mlp4time_scale.1",
    "time.scale_out": "ssd.mlp4time_scale.3",
    "time.conv_in": "ssd.conv1d4time_1",
    "time.conv_out": "ssd.conv1d4time_2",
    "time.gate": "ssd.time_gate_residual.1",
    "time.norm": "ssd.time_layer_norm",
    "dt_bias": "ssd.dt_bias",
    "A_log": "ssd.A_log",
    "D": "ssd.D",
    "gate_norm": "ssd.norm.weight",
    "out_proj": "ssd.out_proj",
    "norm": "layer_norm",
    "ffn_in": "ffn.fc1",
    "ffn_out": "ffn.fc2",
    "ffn_norm": "ffn.layer_norm",
}


def load_official(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], *, causal_conv1d: bool = True
) -> PaperModel:
    """Make a model, in evaluation mode, of a published checkpoint's tensors and configuration, both by official names.

    The checkpoint's item id 0 is the padding; id i becomes row i - 1 of the vocabulary of ``n_items`` - 1 items. An
    unknown item, which the published model does not have, is read as the padding. The published code takes SiLU after
    its convolutions where the number of heads is a multiple of 8 and the package causal_conv1d is installed;
    ``causal_conv1d`` says whether it was. Raises ``ConfigError`` for a configuration and ``VersionError`` for tensors
    that do not make a model.
    """
    ours = _config(config, causal_conv1d)
    model = PaperModel(ours, int(config["n_items"]) - 1)
    state = model.state_dict()
    given = dict(tensors)
    for name, value in state.items():
        official = official_name(name)
        tensor = given.pop(official, None)
        if tensor is None:
            raise VersionError(f"the checkpoint has no tensor {official}")
        if name == "embedding":
            tensor = torch.cat([tensor, tensor[:1]])
        if "conv1d" in official and tensor.dim() == 3:
            tensor = tensor.squeeze(1)  # (channels, 1, K) -> (channels, K)
        if tensor.shape != value.shape:
            raise VersionError(f"tensor {official} must make {tuple(value.shape)}, got {tuple(tensor.shape)}")
        state[name] = tensor
    if given:
        raise VersionError(f"the checkpoint has tensors that the model has not: {', '.join(sorted(given))}")
    model.load_state_dict(state)
    return model.eval()


def official_name(name: str) -> str:
    """Return the published code's name of one of `PaperModel`'s parameters."""
    table, prefix = _OUTER, ""
    if name.startswith("layers."):
        _, index, name = name.split(".", 2)
        table, prefix = _INNER, f"ssd_layers.{index}."
    if name in table:
        return prefix + table[name]
    module, _, kind = name.rpartition(".")
    return f"{prefix}{table[module]}.{kind}"


def _config(config: Mapping[str, Any], causal_conv1d: bool) -> ModelConfig:
    if not config.get("is_ffn", True):
        raise ConfigError("a published model without its feed-forward block (is_ffn: False) is not supported")
    try:
        heads = config["hidden_size"] * config["expand"] // config["head_dim"]
        return ModelConfig(
            name="paper",
            d_model=config["hidden_size"],
            layers=config["num_layers"],
            heads=heads,
            head_dim=config["head_dim"],
            d_state=config["d_state"],
            d_conv=config["d_conv"],
            time=config["is_time"],
            dropout=config["dropout_prob"],
            norm_eps=config["norm_eps"],
            max_length=config["MAX_ITEM_LIST_LENGTH"],
            time_dropout=config["time_drop_out"],
            p2p_residual=config["p2p_residual"],
            kaiming_init=config["is_kai_ming_init"],
            conv_silu=heads % 8 == 0 and causal_conv1d,
        )
    except KeyError as error:
        raise ConfigError(f"the published configuration lacks {error}") from None
