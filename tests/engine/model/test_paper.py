"""The published model against the golden vectors, computed by its own code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from recurra.engine.config import ModelConfig
from recurra.engine.errors import ConfigError, VersionError
from recurra.engine.model import PaperModel, load_official
from recurra.engine.model.official import official_name
from recurra.kernels import ssd

FILES = ["a_paper", "b_heads8", "c_layers1", "d_p2p", "e_notime"]
TOLERANCE = {"f64": 1e-9, "f32": 2e-5}
DTYPE = {"f64": torch.float64, "f32": torch.float32}

Tensors = dict[str, torch.Tensor]


class Golden:
    """One file: tensors by name, configuration, and the model that it describes."""

    def __init__(self, path: Path) -> None:
        with safe_open(str(path), framework="pt") as file:
            self.tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            self.meta = file.metadata()
        self.config: dict[str, Any] = json.loads(self.meta["config"])

    def model(self, *, causal_conv1d: bool = True) -> PaperModel:
        prefix = "param/"
        official = {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
        return load_official(official, self.config, causal_conv1d=causal_conv1d)

    def inputs(self, times: str = "in/timestamps") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Items as version rows (padding becomes -1, and must not matter), times in ms, lengths."""
        t = self.tensors
        return t["in/item_seq"] - 1, t[times].long() * 1000, t["in/item_seq_len"]

    def user_vectors(self, model: PaperModel, times: str = "in/timestamps") -> torch.Tensor:
        items, times_ms, lengths = self.inputs(times)
        hidden: torch.Tensor = model(items, times_ms, lengths)
        return hidden[torch.arange(len(lengths)), lengths]

    def outputs(self, model: PaperModel) -> Tensors:
        """What the published code gives out; differentiable."""
        users = self.user_vectors(model)
        scores = users @ model.official_table().T
        pos = self.tensors["in/pos_items"]
        return {
            "seq_output": users,
            "scores": scores,
            "predict_pos": scores.gather(1, pos[:, None])[:, 0],
            "loss": F.cross_entropy(scores, pos)[None],
        }


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    """The measure of the golden vectors' page."""
    assert got.shape == want.shape
    return float((got.double() - want.double()).abs().max() / max(1.0, float(want.double().abs().max())))


@pytest.fixture(scope="module", params=FILES)
def given(request: pytest.FixtureRequest, golden: Callable[[str], Path]) -> Golden:
    return Golden(golden(f"{request.param}.safetensors"))


def traced(given: Golden, model: PaperModel, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """Everything that a forward pass computes, by its name in the golden files."""
    seen: Tensors = {}

    def output_of(module: nn.Module, name: str, see: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> None:
        module.register_forward_hook(lambda _module, _args, out: seen.__setitem__(name, see(out)))

    def input_of(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _module, args, _out: seen.__setitem__(name, args[0]))

    scans: list[tuple[torch.Tensor, ...]] = []

    def seen_ssd(x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, *rest: Any, **options: Any) -> Any:
        y, final = ssd(x, dt, A, *rest, **options)
        scans.append((dt, A, y, final))
        return y, final

    monkeypatch.setattr("recurra.engine.model.paper.ssd", seen_ssd)
    if model.time_norm is not None:
        input_of(model.time_norm, "time/diff")
        output_of(model.time_norm, "time/normed")
    heads = model.config.heads
    layers: list[Any] = list(model.layers)
    for i, layer in enumerate(layers):
        at = f"layer{i}"
        layer.register_forward_hook(lambda _module, _args, out, at=at: seen.__setitem__(f"{at}/hidden", out[0]))
        output_of(layer.in_proj, f"{at}/dt_raw", lambda out: out[..., -heads:])
        if layer.time is not None:
            output_of(layer.time.scale_in, f"{at}/time_mlp_hidden")
            output_of(layer.time.scale_out, f"{at}/time_scale")
            output_of(layer.time.conv_in, f"{at}/time_act1", lambda out: out.transpose(1, 2))
            output_of(layer.time.conv_out, f"{at}/time_act2", lambda out: out.transpose(1, 2))
            output_of(layer.time.gate, f"{at}/time_gate", torch.sigmoid)
            input_of(layer.time.norm, f"{at}/time_mix")
            output_of(layer.time.norm, f"{at}/time_out")
    input_of(layers[0], "rows/embed")
    output_of(layers[0].in_proj, "layer0/rows/in_proj")
    output_of(layers[0].conv, "layer0/rows/xBC")
    input_of(layers[0].out_proj, "layer0/rows/norm")
    output_of(layers[0].out_proj, "layer0/rows/ssd_out")
    output_of(layers[0].norm, "layer0/rows/after_norm")
    with torch.no_grad():
        seen |= given.outputs(model)
    for i, (dt, A, _y, _final) in enumerate(scans):
        seen[f"layer{i}/dt_effective"], seen[f"layer{i}/A"] = dt, A
        q = seen.get(f"layer{i}/time_act2")
        seen[f"layer{i}/dt_final"] = seen[f"layer{i}/dt_raw"] * (1 if q is None else q.transpose(1, 2))
    seen["layer0/rows/scan_y"], seen["layer0/rows/final_state"] = scans[0][2:]
    # of some values the files keep a few rows of the batch only
    rows = given.tensors.get("f64/rows", torch.empty(0, dtype=torch.int64))
    return {name: tensor[rows] if "rows/" in name else tensor for name, tensor in seen.items()}


@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_everything_on_the_way_is_what_the_published_code_computes(
    given: Golden, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = traced(given, given.model().to(DTYPE[precision]), monkeypatch)
    # these have tests of their own, or are inputs of this one
    apart = ("rows", "seq_output_ts32", "seq_output_without_causal_conv1d")
    stored = {
        name.removeprefix(f"{precision}/"): tensor
        for name, tensor in given.tensors.items()
        if name.startswith(f"{precision}/") and name.partition("/")[2] not in apart
    }
    assert stored.keys() <= seen.keys()
    errors = {name: error(seen[name], want) for name, want in stored.items()}
    assert {name: value for name, value in errors.items() if not value < TOLERANCE[precision]} == {}


def test_rounded_stamps_in_double_arithmetic(given: Golden) -> None:
    with torch.no_grad():
        users = given.user_vectors(given.model().double(), "in/timestamps_f32")
    assert error(users, given.tensors["f64/seq_output_ts32"]) < TOLERANCE["f64"]


def test_variant_without_the_package_causal_conv1d(golden: Callable[[str], Path]) -> None:
    given = Golden(golden("b_heads8.safetensors"))
    with torch.no_grad():
        users = given.user_vectors(given.model(causal_conv1d=False).double())
        other = given.user_vectors(given.model().double())
    want = given.tensors["f64/seq_output_without_causal_conv1d"]
    assert error(users, want) < TOLERANCE["f64"]
    assert error(other, want) > 1e-3


@pytest.mark.parametrize("backend", ["naive", "chunk"])
def test_gradients_are_those_of_the_published_code(
    given: Golden, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = given.model().double()
    items, times_ms, lengths = given.inputs()
    users = model(items, times_ms, lengths, backend=backend)[torch.arange(len(lengths)), lengths]
    F.cross_entropy(users @ model.official_table().T, given.tensors["in/pos_items"]).backward()  # type: ignore[no-untyped-call]
    unmoved = []
    compared = 0
    for name, parameter in model.named_parameters():
        official = official_name(name)
        if parameter.grad is None:
            unmoved.append(official)
            continue
        # the last row is the unknown item's, which the published model does not have
        grad = parameter.grad[:-1] if name == "embedding" else parameter.grad
        norm = given.tensors[f"grad_norm/{official}"]
        assert error(grad.norm()[None], norm) < 1e-9, official
        want = given.tensors.get(f"grad/{official}")
        if want is not None:
            got = grad[: len(want)] if name == "embedding" else grad.view(want.shape)
            assert error(got, want) < 1e-9, official
            compared += 1
    assert sorted(unmoved) == sorted(json.loads(given.meta["parameters_without_gradient"]))
    assert compared == sum(name.startswith("grad/") for name in given.tensors)


def test_what_stands_in_the_padding_does_not_matter(given: Golden) -> None:
    model = given.model().double()
    items, times_ms, lengths = given.inputs()
    short = torch.where(lengths < 20)[0]
    inside = torch.arange(20) < lengths[short, None]
    other_items = torch.where(inside, items[short, :20], 7)
    other_times_ms = torch.where(inside, times_ms[short, :20], 5_000)
    with torch.no_grad():
        whole = model(items[short], times_ms[short], lengths[short])
        cut = model(other_items, other_times_ms, lengths[short])
        alone = model(items[short[:1], : lengths[short[0]]], times_ms[short[:1], : lengths[short[0]]])
    torch.testing.assert_close(cut, whole[:, :21], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alone, whole[:1, : lengths[short[0]] + 1], rtol=1e-12, atol=1e-12)


def test_order_of_the_vocabulary_and_the_unknown_item(given: Golden) -> None:
    model = given.model()
    table = given.tensors["param/item_embedding.weight"]
    assert model.items == len(table) - 1
    assert torch.equal(model.item_table(), table[1:])
    assert torch.equal(model.official_table(), table)
    assert torch.equal(model.embedding[model.unknown_row + 1], table[0])
    assert not model.training


def test_the_vectors_before_the_end_of_a_row_depend_on_what_comes_later(golden: Callable[[str], Path]) -> None:
    given = Golden(golden("a_paper.safetensors"))
    model = given.model().double()
    items, times_ms, lengths = given.inputs()
    later = times_ms.clone()
    full = lengths == 50
    later[full, 49] += 86_400_000
    with torch.no_grad():
        moved = (model(items, later, lengths) - model(items, times_ms, lengths)).abs()
    assert moved[full, 1].max() > 1e-5
    assert not moved[~full].any()


def test_long_rows_are_refused(golden: Callable[[str], Path]) -> None:
    model = Golden(golden("e_notime.safetensors")).model()
    rows = torch.zeros(1, 51, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"at most model\.max_length = 50 events can be read, got 51"):
        model(rows, rows)


def test_checkpoints_that_do_not_fit_are_refused(golden: Callable[[str], Path]) -> None:
    given = Golden(golden("e_notime.safetensors"))
    tensors = {name.removeprefix("param/"): t for name, t in given.tensors.items() if name.startswith("param/")}
    with pytest.raises(VersionError, match=r"has no tensor ssd_layers\.1\.ffn\.fc1\.bias"):
        load_official({n: t for n, t in tensors.items() if n != "ssd_layers.1.ffn.fc1.bias"}, given.config)
    with pytest.raises(VersionError, match=r"ssd_layers\.0\.ssd\.D must make \(4,\), got \(3,\)"):
        load_official({**tensors, "ssd_layers.0.ssd.D": torch.zeros(3)}, given.config)
    with pytest.raises(VersionError, match="tensors that the model has not: position"):
        load_official({**tensors, "position": torch.zeros(3)}, given.config)
    with pytest.raises(ConfigError, match="lacks 'd_state'"):
        load_official(tensors, {name: value for name, value in given.config.items() if name != "d_state"})
    with pytest.raises(ConfigError, match="is_ffn"):
        load_official(tensors, {**given.config, "is_ffn": False})


SMALL = ModelConfig(name="paper", d_model=64, max_length=30)


@pytest.mark.parametrize("kaiming", [True, False])
def test_initial_values(kaiming: bool) -> None:
    model = PaperModel(msgspec.structs.replace(SMALL, kaiming_init=kaiming), 500)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.35)
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()
    assert float(model.embedding.detach().std()) == pytest.approx(0.02, rel=0.05)
    layers: list[Any] = list(model.layers)
    for layer in layers:
        assert bool(((layer.A_log.exp() >= 1) & (layer.A_log.exp() <= 16)).all())
        dt = F.softplus(layer.dt_bias)
        assert bool(((dt >= 0.001 * 0.999) & (dt <= 0.1 * 1.001)).all())
        assert bool((layer.D == 1).all())
        assert bool((layer.gate_norm == 1).all())
        weight, bias = layer.conv.weight.detach(), layer.conv.bias.detach()
        if kaiming:
            # 192 channels of width 4, four heads of width 4
            assert float(weight.std()) == pytest.approx(0.051, rel=0.1)
            assert float(layer.time.conv_in.weight.detach().std()) == pytest.approx(0.354, rel=0.6)
            assert not bias.any()
        else:
            assert 0.45 < float(weight.abs().max()) <= 0.5
            assert 0.45 < float(bias.abs().max()) <= 0.5


def test_dropout_falls_where_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    plain = F.dropout

    def dropout(values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        rates.append(p if training else 0.0)
        return plain(values, p, training, inplace)

    monkeypatch.setattr(F, "dropout", dropout)
    model = PaperModel(msgspec.structs.replace(SMALL, dropout=0.3, time_dropout=0.1), 500)
    items = torch.arange(20)[None]
    model(items, items * 1000)
    # vectors, steps; per layer: two in the time branch, scan's result, feed-forward's inner and outer result
    assert rates == [0.3, 0.3] + [0.1, 0.1, 0.3, 0.3, 0.3] * 2
    model.eval()
    torch.testing.assert_close(model(items, items * 1000), model(items, items * 1000), rtol=0, atol=0)


def test_number_of_trained_values() -> None:
    # the table of docs/explanation/model.md
    assert PaperModel(ModelConfig(name="paper"), 3_416).parameters_count == 508_882
    assert PaperModel(ModelConfig(name="paper", max_length=50), 3_416).parameters_count == 357_082
