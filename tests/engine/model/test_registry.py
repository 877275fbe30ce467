from pathlib import Path

import msgspec
import pytest
import torch

import recurra
from recurra.engine.config import MODEL_NAMES, Config, ModelConfig, load_config
from recurra.engine.errors import ConfigError
from recurra.engine.model import create_model
from recurra.engine.model.registry import MODELS

SMALL = ModelConfig(d_model=8, heads=2, head_dim=6, d_state=4, time_hidden=5, max_length=12, gru_hidden=10)
OFFLINE = [name for name in MODEL_NAMES if name != "streaming"]


def small(name: str, **changes: object) -> ModelConfig:
    return msgspec.structs.replace(SMALL, name=name, **changes)


def test_every_name_has_a_model_and_every_model_a_name() -> None:
    assert tuple(MODELS) == MODEL_NAMES
    assert [name for name, model in MODELS.items() if model.streams] == ["streaming"]
    assert [name for name, model in MODELS.items() if not model.causal] == ["paper"]


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_what_all_models_have_in_common(name: str) -> None:
    model = create_model(small(name), 7).eval()
    assert isinstance(model, MODELS[name])
    assert model.item_table().shape == (7, 8)
    assert model.unknown_row == 7
    assert model.parameters_count == sum(p.numel() for p in model.parameters())
    items = torch.tensor([[0, 6, 7, 2, 0], [5, 0, 0, 0, 0]])
    times_ms = torch.tensor([[1, 5, 9, 9, 9], [4, 4, 4, 4, 4]]) * 10**11
    with torch.no_grad():
        hidden = model(items, times_ms, torch.tensor([4, 1]))
        full = model(items[:, :4], times_ms[:, :4])
    assert hidden.shape == (2, 6, 8)
    assert not hidden[0, 5:].any()
    assert not hidden[1, 2:].any()
    torch.testing.assert_close(hidden[0, 4], full[0, 4])
    assert torch.equal(model.query(hidden[:, :1] * 0, None), hidden[:, :1] * 0)
    if name != "streaming":
        assert model.query_time is None
        assert not hidden[:, 0].any()


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_initial_values_follow_the_generator(name: str) -> None:
    def values(seed: int | None) -> torch.Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        model = create_model(small(name), 7, generator=generator)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    torch.manual_seed(5)
    first = values(None)
    torch.manual_seed(6)
    assert torch.equal(first, values(0))
    assert not torch.equal(first, values(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "transformer"}, "model.name must be streaming, paper, sasrec or gru4rec, got 'transformer'"),
        ({"layers": 0}, "model.layers must be an integer, 1 to 64, got 0"),
        ({"gru_hidden": -1}, "model.gru_hidden must be an integer, 1 to 8_192, got -1"),
        ({"max_length": 0}, "model.max_length must be an integer, 1 to 65_536, got 0"),
        ({"dropout": 1.0}, "model.dropout must be a number, at least 0 and below 1, got 1.0"),
        ({"time_dropout": -0.1}, "model.time_dropout must be a number, at least 0 and below 1, got -0.1"),
        ({"d_conv": 1}, "model.d_conv must be at least 2 for the streaming model, got 1"),
        ({"name": "sasrec", "attention_heads": 3}, "multiple of model.attention_heads, got 64 and 3"),
    ],
)
def test_values_that_make_no_model_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**changes)  # type: ignore[arg-type]


def test_a_wrong_name_in_a_file_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "recurra.toml"
    path.write_text('[model]\nname = "bert"\n')
    with pytest.raises(ConfigError, match=r"recurra\.toml: model\.name must be .*, got 'bert'"):
        load_config(path)


@pytest.mark.parametrize("name", OFFLINE)
def test_the_engine_says_why_it_does_not_serve_a_model(name: str, tmp_path: Path) -> None:
    config = Config(model=small(name))
    with pytest.raises(ConfigError, match=f"{name} cannot serve a stream: .*recurra evaluate --model {name}"):
        recurra.open(tmp_path / "engine", config)
    # nothing was begun
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("taps", [2, 3, 5])
def test_the_engine_serves_one_width_of_the_convolution(taps: int, tmp_path: Path) -> None:
    config = Config(model=msgspec.structs.replace(SMALL, d_conv=taps))
    with pytest.raises(ConfigError, match=rf"model\.d_conv must be 4 for the streaming model to serve, got {taps}"):
        recurra.open(tmp_path / "engine", config)
