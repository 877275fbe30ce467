"""Training on a GPU where there is one; without one, what its code does to dtypes and by which scan, on the CPU."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from recurra.engine.config import Config, ModelConfig, TrainingConfig
from recurra.engine.devices import device_of
from recurra.engine.errors import ConfigError
from recurra.engine.model import StreamingModel, create_model
from recurra.engine.training.learner import Learner
from recurra.engine.training.loss import Sampler
from recurra.engine.training.rounds import Round, train_round
from recurra.engine.training.windows import PackedWindows, UserLog

from .virtual import VirtualGPU, moved

GPU = torch.cuda.is_available()
NO_GPU = pytest.mark.skipif(not GPU, reason="no CUDA device to train on")
ITEMS = 30
# the package has a function of this name
SSD = import_module("recurra.kernels.ssd")
SMALL = ModelConfig(d_model=16, layers=2, heads=2, head_dim=16, d_state=16, dropout=0.0, unknown_rate=0.0)


def make_batch(windows: int, length: int = 12) -> PackedWindows:
    rng = np.random.default_rng(0)
    total = windows * length
    times_ms = rng.integers(0, 10_000_000, total).cumsum()
    return PackedWindows(rng.integers(0, ITEMS + 1, total), times_ms, np.arange(windows + 1) * length, np.arange(total))


def encoded(model: StreamingModel, batch: PackedWindows, backend: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    items, times_ms, offsets = map(torch.from_numpy, batch[:3])
    hidden = model.encode(items, times_ms, offsets, backend=backend, seed=1)
    slope = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    used = [model.embedding, *model.layers.parameters()]
    return hidden.detach(), list(torch.autograd.grad((hidden.float() * slope).sum(), used))


def close(got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    assert got.dtype == want.dtype == torch.float32
    assert float((got - want).norm()) <= tolerance * (float(want.norm()) + 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(GPU, reason="the interpreter is for machines without a GPU; kernels are tested on the device")
def test_the_model_by_the_triton_scan_is_the_model() -> None:
    pytest.importorskip("triton", reason="the optional extra gpu is not installed")
    model = StreamingModel(SMALL, ITEMS).train()
    batch = make_batch(3)
    found, truth = (encoded(model, batch, backend) for backend in ("triton", "chunk"))
    close(found[0], truth[0], 1e-5)
    for got, want in zip(found[1], truth[1], strict=True):
        close(got, want, 1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_narrow_products_leave_sums_and_gradients_wide(dropout: float) -> None:
    model = StreamingModel(msgspec.structs.replace(SMALL, dropout=dropout), ITEMS).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    batch = make_batch(5)
    wide = encoded(model, batch, "chunk")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = encoded(model, batch, "chunk")
    close(narrow[0], wide[0], 0.03)
    assert not torch.equal(narrow[0], wide[0])
    for got, want in zip(narrow[1], wide[1], strict=True):
        close(got, want, 0.1)


def test_a_device_that_is_not_there_is_named(stream: Callable[..., UserLog], config: Config) -> None:
    assert device_of("cpu", name="x") == torch.device("cpu")
    assert device_of("auto", name="x").type == ("cuda" if GPU else "cpu")
    with pytest.raises(ConfigError, match="--device must be cpu, cuda or auto, got 'tpu'"):
        device_of("tpu", name="--device")
    with pytest.raises(ConfigError, match=r"training\.device must be cpu, cuda or auto, got 'gpu'"):
        TrainingConfig(device="gpu")  # type: ignore[arg-type]
    if not GPU:
        given = Config(training=TrainingConfig(device="cuda"))
        with pytest.raises(ConfigError, match=r"training\.device is cuda, and torch finds no CUDA device"):
            train_round(Round(stream(100), [f"i{row}" for row in range(30)], None, given))


def losses(name: str, device: str, precision: str) -> list[float]:
    shape = msgspec.structs.replace(SMALL, name=name, time_dropout=0.0, max_length=12)
    model = create_model(shape, ITEMS, generator=torch.Generator().manual_seed(0)).to(device)
    config = TrainingConfig(precision=precision)  # type: ignore[arg-type]
    learner = Learner(model, config, rate=1e-2, shape=lambda _: 1.0, rng=np.random.default_rng(0))
    batch = make_batch(40)
    counted = None
    if not model.causal:
        counted = np.zeros(len(batch.items), np.bool_)
        counted[batch.offsets[1:] - 1] = True
    return [learner.step(batch, counted=counted).loss for _ in range(10)]


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("name", ["streaming", "paper", "sasrec", "gru4rec"])
def test_a_gpu_learns_what_the_cpu_learns(name: str) -> None:
    want = losses(name, "cpu", "float32")
    np.testing.assert_allclose(losses(name, "cuda", "float32"), want, rtol=2e-3)
    np.testing.assert_allclose(losses(name, "cuda", "bfloat16"), want, rtol=5e-2)


@pytest.mark.gpu
@NO_GPU
def test_a_round_on_a_gpu_gives_a_version_on_the_cpu(stream: Callable[..., UserLog], config: Config) -> None:
    given = msgspec.structs.replace(config, training=msgspec.structs.replace(config.training, device="cuda"))
    outcome = train_round(Round(stream(800), [f"i{row}" for row in range(30)], None, given))
    assert outcome.report.ndcg_candidate is not None
    assert outcome.report.ndcg_candidate > 0.6
    assert outcome.model is not None
    assert outcome.model.embedding.device.type == "cpu"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> VirtualGPU:
    """A GPU that is none, with the scan by chunks."""
    if GPU:
        pytest.skip("there is a real GPU, and it is tested")
    real = torch.Generator

    class OnCPU:
        def __new__(cls, device: object = "cpu") -> Any:
            return real("cpu")

    monkeypatch.setattr(torch, "Generator", OnCPU)
    monkeypatch.setattr(SSD, "_has_triton", lambda: False)
    return VirtualGPU()


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("name", ["streaming", "paper", "sasrec", "gru4rec"])
def test_no_step_mixes_devices(name: str, sampled: bool, gpu: VirtualGPU) -> None:
    shape = msgspec.structs.replace(SMALL, name=name, max_length=12, dropout=0.1, unknown_rate=0.1)
    model = moved(create_model(shape, ITEMS))
    sampler = Sampler.of(np.ones(ITEMS, np.int64), 8) if sampled else None
    config = TrainingConfig(precision="float32", query_time_share=0.5)
    batch = make_batch(6)
    last = np.zeros(len(batch.items), np.bool_)
    last[batch.offsets[1:] - 1] = True
    with gpu:
        learner = Learner(model, config, rate=1e-2, shape=lambda _: 1.0, rng=np.random.default_rng(0), sampler=sampler)
        done = learner.step(batch, counted=None if model.causal else last)
    assert done.events > 0


def test_a_step_by_the_triton_scan_waits_for_its_loss_alone(gpu: VirtualGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="the optional extra gpu is not installed")

    def stand_in(x: torch.Tensor, *_: object, cu_seqlens: torch.Tensor, **__: object) -> tuple[torch.Tensor, None]:
        assert x.device.type == "cuda"
        assert cu_seqlens.device.type == "cpu"
        return x * 1.0, None

    monkeypatch.setattr(SSD, "_has_triton", lambda: True)
    monkeypatch.setattr(import_module("recurra.kernels.ssd.triton"), "ssd_triton", stand_in)
    model = moved(create_model(SMALL, ITEMS))
    config = TrainingConfig(precision="float32")
    # clipping gathers norms from all devices, which here looks like a move
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    with gpu:
        learner = Learner(model, config, rate=1e-2, shape=lambda _: 1.0, rng=np.random.default_rng(0))
        learner.step(make_batch(6))
    assert gpu.waits == {"item": 1}
