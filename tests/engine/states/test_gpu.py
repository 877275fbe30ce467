"""States on a device against those on the CPU: on a GPU where there is one, else in Triton's interpreter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recurra.engine.clock import EventClock
from recurra.engine.config import ModelConfig, StateConfig, TrainingConfig
from recurra.engine.engine import Engine
from recurra.engine.errors import ConfigError, InputError, VersionError
from recurra.engine.model import StepWeights, StreamingModel
from recurra.engine.states import StateSlab, create_slab

from ..conftest import publish, small_config, stream

pytest.importorskip("triton", reason="the optional extra gpu is not installed")

from recurra.engine.states import gpu
from recurra.engine.states.gpu import DeviceSlab

pytestmark = pytest.mark.gpu
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
ITEMS = 20
TOLERANCE = 1e-4
SMALL = ModelConfig(d_model=16, layers=2, heads=2, head_dim=8, d_state=8)


def moved(config: ModelConfig = SMALL) -> StreamingModel:
    """A model whose parameters have all left their initial values, so that a forgotten one shows."""
    model = StreamingModel(config, ITEMS).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


MODEL = moved()
WEIGHTS = StepWeights.of(MODEL)


def pair(weights: StepWeights = WEIGHTS, slots: int = 4) -> tuple[DeviceSlab, StateSlab]:
    return DeviceSlab(weights, slots, device=DEVICE), StateSlab(weights, slots)


def agree(ours: DeviceSlab, truth: StateSlab, slots: list[int]) -> None:
    np.testing.assert_allclose(ours.vectors[slots], truth.vectors[slots], rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_array_equal(ours.count[slots], truth.count[slots])
    np.testing.assert_array_equal(ours.last_ms[slots], truth.last_ms[slots])


@pytest.mark.parametrize("block", [1 << 16, 5])
@pytest.mark.parametrize(
    "config",
    [SMALL, ModelConfig(d_model=16, layers=1, heads=3, head_dim=6, d_state=10, time=False, query_time=False)],
    ids=["default", "one layer without time, odd sizes"],
)
def test_steps_runs_and_anchors_are_those_of_the_cpu(
    config: ModelConfig, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_BLOCK", block)
    both = pair(StepWeights.of(moved(config)))
    rng = np.random.default_rng(0)
    now_ms = 0
    # slots, events of each, whether it begins at an anchor: starts alone, runs, single events, a fold among steps
    calls = [
        ([3, 0, 1], [0, 4, 1], [True, True, True]),
        ([0, 1, 3], [1, 1, 1], [False, False, False]),
        ([1, 0, 3], [3, 0, 6], [False, False, True]),
        ([3], [1], [False]),
    ]
    for slots, lengths, resets in calls:
        # the runs lie in another order than they are asked for, after an event that is not read
        starts = 1 + np.sum(lengths) - np.cumsum(lengths)
        items = rng.integers(0, ITEMS + 1, 1 + np.sum(lengths))
        times_ms = now_ms + rng.integers(0, 10_000_000, len(items)).cumsum()
        now_ms = int(times_ms.max())
        for slab in both:
            slab.advance(slots, starts, lengths, resets, items, times_ms)
        agree(*both, slots)
    for asked in ([0, 1, 3], [3]):
        got, want = (slab.query(asked, now_ms + 5_000) for slab in both)
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)


def test_added_items_are_read_by_the_vectors_given() -> None:
    both = pair()
    vectors = np.random.default_rng(1).standard_normal((3, SMALL.d_model)).astype(np.float32)
    for slab in both:
        assert slab.add_items(vectors[:1]) == ITEMS + 2
        assert slab.add_items(vectors[1:]) == ITEMS + 3
        slab.advance([2], [0], [3], [True], [ITEMS + 2, 5, ITEMS + 4], [10, 20, 3000])
        with pytest.raises(InputError, match="item rows"):
            slab.advance([2], [0], [1], [False], [ITEMS + 5], [4000])
    agree(*both, [2])


@pytest.mark.parametrize(
    ("slots", "starts", "lengths", "items"),
    [
        ([3], [0], [1], [0]),
        ([-1], [0], [1], [0]),
        ([0], [0], [1], [ITEMS + 1]),
        ([0], [0], [1], [-1]),
        ([0], [1], [1], [0]),
        ([0], [0], [-1], [0]),
        ([0, 1], [0], [1], [0]),
    ],
)
def test_what_is_out_of_range_is_refused_whole(
    slots: list[int], starts: list[int], lengths: list[int], items: list[int]
) -> None:
    slab = DeviceSlab(WEIGHTS, 3, device=DEVICE)
    before = slab.state.clone()
    with pytest.raises(InputError, match="slots must be in"):
        slab.advance(slots, starts, lengths, [True], items, [0])
    assert torch.equal(slab.state, before)


def test_bfloat16_states_take_half_the_memory_and_stay_close() -> None:
    narrow, wide = (DeviceSlab(WEIGHTS, 2, dtype, device=DEVICE) for dtype in ("bfloat16", "float32"))
    items = np.random.default_rng(2).integers(0, ITEMS, 12)
    for slab in (narrow, wide):
        slab.advance([0], [0], [0], [True], [], [])
        for t in range(12):
            slab.advance([0], [t], [1], [False], items, np.arange(12) * 60_000)
    assert narrow.nbytes_per_slot < 0.6 * wide.nbytes_per_slot
    error = np.abs(narrow.vectors[0] - wide.vectors[0]).max()
    assert 1e-6 < error < 0.05
    with pytest.raises(InputError, match="float32 or bfloat16, got 'float16'"):
        DeviceSlab(WEIGHTS, 2, "float16", device=DEVICE)


def test_check_finds_a_step_that_is_not_the_model_s() -> None:
    DeviceSlab(WEIGHTS, 1, device=DEVICE).check(MODEL)
    wrong = WEIGHTS.layers.D + np.float32(0.5)
    with pytest.raises(VersionError, match="disagree"):
        DeviceSlab(WEIGHTS._replace(layers=WEIGHTS.layers._replace(D=wrong)), 1, device=DEVICE).check(MODEL)
    broken = WEIGHTS.layers.D * np.float32(np.nan)
    with pytest.raises(VersionError, match="not finite"):
        DeviceSlab(WEIGHTS._replace(layers=WEIGHTS.layers._replace(D=broken)), 1, device=DEVICE).check()


def test_a_filter_of_another_width_is_refused() -> None:
    weights = StepWeights.of(moved(ModelConfig(d_model=16, heads=2, head_dim=8, d_state=8, d_conv=3)))
    with pytest.raises(VersionError, match="d_conv = 4, the version has 3"):
        DeviceSlab(weights, 1, device=DEVICE)


def test_the_configuration_says_which_slab() -> None:
    assert isinstance(create_slab(WEIGHTS, 1, StateConfig()), StateSlab)
    with pytest.raises(ConfigError, match=r"states\.device must be cpu or cuda, got 'tpu'"):
        StateConfig(device="tpu")  # type: ignore[arg-type]
    if GPU:
        assert isinstance(create_slab(WEIGHTS, 1, StateConfig(device="cuda")), DeviceSlab)
    else:
        with pytest.raises(ConfigError, match=r"states\.device is cuda, and torch finds no CUDA device"):
            create_slab(WEIGHTS, 1, StateConfig(device="cuda"))


@pytest.mark.skipif(GPU, reason="there is a CUDA device to use")
@pytest.mark.parametrize("section", ["states", "training"])
def test_an_engine_that_is_to_use_a_missing_gpu_does_not_open(section: str, tmp_path: Path) -> None:
    settings = {"states": StateConfig(device="cuda"), "training": TrainingConfig(device="cuda")}
    with pytest.raises(ConfigError, match=rf"{section}\.device is cuda, and torch finds no CUDA device"):
        Engine(tmp_path, small_config(**{section: settings[section]}), clock=EventClock(0))
    assert not list(tmp_path.iterdir())


def test_an_engine_on_a_gpu_answers_as_one_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # interpreted, an event takes some milliseconds
    for module in ("engine", "states.create"):
        monkeypatch.setattr(f"recurra.engine.{module}.device_of", lambda setting, *, name: DEVICE)
    events = stream(400 if GPU else 24)
    users = sorted({event.user for event in events})
    answers = []
    for device in ("cpu", "cuda"):
        config = small_config(states=StateConfig(hot_users=16 if GPU else 64, device=device))
        publish(tmp_path / device, [f"i{item}" for item in range(30)])
        with Engine(tmp_path / device, config, clock=EventClock(events[-1].time_ms)) as engine:
            for start in range(0, len(events), 12):
                engine.ingest(events[start : start + 12])
            now_ms = events[-1].time_ms + 1000
            asked = [engine.recommend(user, 10, at=now_ms) for user in users]
        answers.append([dict(zip(answer.items, answer.scores, strict=True)) for answer in asked])
    for cpu, cuda in zip(*answers, strict=True):
        # two items of nearly one score may change places at the end of a list
        both = cpu.keys() & cuda.keys()
        assert len(both) >= len(cpu) - 1
        for item in both:
            assert cuda[item] == pytest.approx(cpu[item], rel=TOLERANCE, abs=TOLERANCE)
