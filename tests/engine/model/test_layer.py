"""The layer's step against its pass over whole sequences: outputs, final states and gradients, in double precision."""

from itertools import pairwise

import pytest
import torch

from recurra.engine.config import ModelConfig
from recurra.engine.model import LayerState, StreamingLayer, StreamingModel

LENGTHS = (1, 2, 63, 64, 65, 200)


def _layer(layers: int = 2, *, time: bool = True) -> StreamingLayer:
    config = ModelConfig(d_model=16, layers=layers, heads=2, head_dim=8, d_state=8, time=time)
    model = StreamingModel(config, 20).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.2)
    layer = model.layers[0]
    assert isinstance(layer, StreamingLayer)
    return layer


def _inputs(events: int, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(events, 16, generator=generator, dtype=torch.float64),
        torch.rand(events, 3, generator=generator, dtype=torch.float64),
    )


def _stepped(layer: StreamingLayer, a: torch.Tensor, phi: torch.Tensor) -> tuple[torch.Tensor, LayerState]:
    state, out = LayerState.empty(1, layer), []
    for t in range(len(a)):
        y, state = layer.step(a[t : t + 1], phi[t : t + 1], state)
        out.append(y)
    return torch.cat(out), state


def _keep(values: torch.Tensor) -> torch.Tensor:
    return values


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("backend", ["naive", "chunk"])
def test_the_step_is_the_pass_over_whole_sequences(backend: str, layers: int, time: bool) -> None:
    layer = _layer(layers, time=time)
    bounds = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()])
    a, phi = _inputs(int(bounds[-1]))
    with torch.no_grad():
        want = layer(a, phi, bounds, _keep, backend)
        for begin, end in pairwise(bounds.tolist()):
            got, _ = _stepped(layer, a[begin:end], phi[begin:end])
            torch.testing.assert_close(got, want[begin:end], rtol=1e-10, atol=1e-10)


def test_gradients_of_the_step_are_those_of_the_pass() -> None:
    layer = _layer()
    a, phi = _inputs(65)
    weight = torch.randn(65, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = []
    for stepped in (True, False):
        x, gaps = a.clone().requires_grad_(), phi.clone().requires_grad_()
        out = _stepped(layer, x, gaps)[0] if stepped else layer(x, gaps, torch.tensor([0, 65]), _keep, "naive")
        inputs = [x, gaps, *layer.parameters()]
        found.append(torch.autograd.grad((out * weight).sum(), inputs))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_the_fused_layer_is_the_step() -> None:
    layer = _layer().float()
    a, phi = (values.float() for values in _inputs(200))
    with torch.no_grad():
        got = layer.fused(a, phi, torch.tensor([0, 200]), 0.0, 0)
        want, _ = _stepped(layer, a, phi)
    torch.testing.assert_close(got, want, rtol=2e-4, atol=2e-4)


def test_a_state_is_a_value_and_may_be_gone_on_from_twice() -> None:
    layer = _layer()
    a, phi = _inputs(40)
    with torch.no_grad():
        whole, end = _stepped(layer, a, phi)
        _, half = _stepped(layer, a[:20], phi[:20])
        kept = LayerState(*(part.clone() for part in half))
        for _ in range(2):
            state = half
            for t in range(20, 40):
                y, state = layer.step(a[t : t + 1], phi[t : t + 1], state)
            torch.testing.assert_close(y, whole[-1:], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(state.scan, end.scan, rtol=1e-12, atol=1e-12)
        for before, after in zip(kept, half, strict=True):
            assert torch.equal(before, after)
