"""The compiled training of a layer against the model's own layer in float64."""

import copy
from collections.abc import Iterator

import msgspec
import pytest
import torch

from recurra.engine.config import ModelConfig
from recurra.engine.model import StreamingLayer
from recurra.kernels.block.train import BUFFERS, layer_masks
from recurra.kernels.block.train_norm import drop_norm

LENGTHS = [1, 2, 63, 64, 65, 0, 200]
CONFIG = ModelConfig(d_model=8, heads=2, head_dim=6, d_state=4, time_hidden=5)
RATE, SEED = 0.2, 5
# float32 against float64; relative to the largest value of a tensor
OUT_ATOL, GRAD_RTOL = 1e-5, 1e-4


@pytest.fixture
def nan_memory() -> Iterator[None]:
    """Fresh tensors and work memory are full of NaN."""
    torch.use_deterministic_algorithms(True)
    for block in BUFFERS.free:
        block.fill_(torch.nan)
    yield
    torch.use_deterministic_algorithms(False)


def moved(config: ModelConfig) -> StreamingLayer:
    """A layer in float64 without a parameter at its initial value."""
    made = StreamingLayer(config).double()
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    made.reset(generator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.2)
    return made


def gradients(
    layer: StreamingLayer, lengths: list[int], rate: float, *, fused: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    layer = copy.deepcopy(layer)
    dtype = torch.float64
    if fused:
        layer, dtype = layer.float(), torch.float32
    generator = torch.Generator().manual_seed(7)
    rows, d = sum(lengths), layer.in_proj.in_features
    a = torch.randn(rows, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    phi = torch.rand(rows, 3, generator=generator, dtype=torch.float64).to(dtype)
    weights = torch.randn(rows, d, generator=generator, dtype=torch.float64).to(dtype)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    if fused:
        out = layer.fused(a, phi, bounds, rate, SEED)
    else:
        masks = iter(layer_masks(SEED, rows, d, rate))
        out = layer(a, phi, bounds, lambda values: values * next(masks), "naive")
    (out * weights).sum().backward()  # type: ignore[no-untyped-call]
    named = {"a": a, **dict(layer.named_parameters())}
    return out.detach().double(), {name: p.grad.double() for name, p in named.items() if p.grad is not None}


def compare(config: ModelConfig, lengths: list[int], rate: float) -> None:
    layer = moved(config)
    out, grads = gradients(layer, lengths, rate, fused=True)
    want, want_grads = gradients(layer, lengths, rate, fused=False)
    torch.testing.assert_close(out, want, rtol=0, atol=OUT_ATOL)
    assert grads.keys() == want_grads.keys() == {"a", *dict(layer.named_parameters())}
    for name, grad in want_grads.items():
        torch.testing.assert_close(grads[name], grad, rtol=0, atol=GRAD_RTOL * grad.abs().max().item(), msg=name)


@pytest.mark.usefixtures("nan_memory")
@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_packed_rows_equal_the_model_with_all_gradients(layers: int, time: bool, rate: float) -> None:
    compare(msgspec.structs.replace(CONFIG, layers=layers, time=time), LENGTHS, rate)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 200])
def test_a_row_alone_equals_the_model_with_all_gradients(length: int) -> None:
    compare(CONFIG, [length], RATE)


def test_default_sizes_equal_the_model_with_all_gradients() -> None:
    compare(ModelConfig(), [65, 40], RATE)


def test_dropout_depends_on_the_seed_alone() -> None:
    layer = moved(CONFIG).float()
    a, phi, bounds = torch.randn(50, 8), torch.rand(50, 3), torch.tensor([0, 50])
    with torch.no_grad():
        first, same, other = (layer.fused(a, phi, bounds, RATE, seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_masks_are_independent_and_keep_the_mean() -> None:
    masks = [*layer_masks(1, 400, 64, RATE), *layer_masks(2, 400, 64, RATE)]
    for mask in masks:
        assert sorted(torch.unique(mask).tolist()) == [0.0, pytest.approx(1 / (1 - RATE))]
        assert mask.mean().item() == pytest.approx(1.0, abs=0.02)
    flat = torch.stack([(mask > 0)[:, :64].flatten() for mask in masks]).double()
    neighbours = torch.cat([flat, flat[:1].roll(1, 1), flat[:1].roll(64, 1)])
    correlation = torch.corrcoef(neighbours) - torch.eye(len(neighbours))
    # five deviations of what independent draws have
    assert correlation.abs().max().item() < 5 / flat.shape[1] ** 0.5


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_dropped_norm_equals_torch_with_all_gradients(rate: float) -> None:
    generator = torch.Generator().manual_seed(7)
    shapes = [(30, 16), (16,), (16,)]
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    a, weight, bias = (v.double() for v in inputs)
    mask = layer_masks(SEED, 30, 16, rate)[0]
    want = torch.nn.functional.layer_norm(a * mask, (16,), weight, bias, 1e-12)
    got = drop_norm(inputs[0], inputs[1], inputs[2], eps=1e-12, dropout=rate, seed=SEED)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=OUT_ATOL)
    weights = torch.randn(got.shape, generator=generator)
    for one, other in zip(
        torch.autograd.grad((got * weights).sum(), inputs),
        torch.autograd.grad((want * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=GRAD_RTOL * other.abs().max().item())


def test_backward_is_done_once() -> None:
    layer = moved(CONFIG).float()
    out = layer.fused(torch.randn(5, 8), torch.rand(5, 3), torch.tensor([0, 5]), 0.0, 0).sum()
    out.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="once only"):
        out.backward()  # type: ignore[no-untyped-call]


def test_what_it_cannot_do_is_named() -> None:
    layer = StreamingLayer(msgspec.structs.replace(CONFIG, d_conv=3))
    with pytest.raises(ValueError, match="d_conv = 4"):
        layer.fused(torch.zeros(2, 8), torch.zeros(2, 3), torch.tensor([0, 2]), 0.0, 0)
