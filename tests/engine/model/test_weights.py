from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recurra.engine.config import ModelConfig
from recurra.engine.errors import ConfigError, VersionError
from recurra.engine.model import StepWeights, StreamingModel, load, save

CONFIG = ModelConfig(d_model=8, heads=2, head_dim=4, d_state=4, dropout=0.1)


@pytest.fixture
def model() -> StreamingModel:
    return StreamingModel(CONFIG, 7, generator=torch.Generator().manual_seed(1))


def test_what_is_saved_is_loaded(model: StreamingModel, tmp_path: Path) -> None:
    model.gap_clip_s.fill_(1234.5)
    save(model, tmp_path / "w.safetensors")
    other = load(tmp_path / "w.safetensors")
    assert other.config == CONFIG
    assert other.items == 7
    assert not other.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert StepWeights.of(other).gap_clip_s == 1234.5


def test_items_are_searched_by_vectors_of_one_length(tmp_path: Path) -> None:
    model = StreamingModel(ModelConfig(d_model=8, heads=2, head_dim=4, d_state=4, item_length=1.5), 7)
    torch.testing.assert_close(model.item_table().norm(dim=1), torch.full((7,), 1.5))
    save(model, tmp_path / "w.safetensors")
    weights = StepWeights.of(load(tmp_path / "w.safetensors"))
    torch.testing.assert_close(torch.tensor(weights.item_table), model.item_table())
    with pytest.raises(ConfigError, match="item_length"):
        ModelConfig(item_length=-1.0)


def test_missing_truncated_and_foreign_files_are_refused(model: StreamingModel, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(VersionError, match="cannot read the weights"):
        load(path)
    save(model, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VersionError, match="cannot read the weights"):
        load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(VersionError, match="format 1 expected"):
        load(path)


def edited(model: StreamingModel, path: Path, name: str, tensor: torch.Tensor | None) -> None:
    save(model, path)
    tensors = load_file(path)
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    meta = {"format": "1", "items": "7", "config": '{"d_model":8,"heads":2,"head_dim":4,"d_state":4}'}
    save_file(tensors, path, metadata=meta)


def test_wrong_shapes_and_values_are_named(model: StreamingModel, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    edited(model, path, "embedding", torch.zeros(5, 8))
    with pytest.raises(VersionError, match=r"embedding must have shape \(9, 8\), got \(5, 8\)"):
        load(path)
    edited(model, path, "layers.0.D", None)
    with pytest.raises(VersionError, match=r"layers.0.D must have shape \(2,\), got None"):
        load(path)
    edited(model, path, "layers.1.D", torch.tensor([1.0, torch.nan]))
    with pytest.raises(VersionError, match=r"layers.1.D has 1 of 2 values that are not finite"):
        load(path)


def test_step_weights_are_refused_when_not_finite(model: StreamingModel) -> None:
    with torch.no_grad():
        model.embedding[3, 2] = torch.inf
    with pytest.raises(VersionError, match="embedding has 1 of 72"):
        StepWeights.of(model)


def test_step_weights_are_read_only_and_complete(model: StreamingModel) -> None:
    weights = StepWeights.of(model)
    assert weights.read_table.shape == (9, 8)
    assert weights.item_table.shape == (7, 8)
    assert weights.query is not None
    for array in (*weights.layers, *weights.query, weights.read_table):
        assert array.dtype == "float32"
        assert array.flags.c_contiguous
        assert not array.flags.writeable
