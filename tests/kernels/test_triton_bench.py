"""The GPU benchmark between its clocks, in small, and interpreted where there is no GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recurra.simulations.bench import kernels
from recurra.simulations.bench import tuning as launches

pytest.importorskip("triton", reason="the optional extra gpu is not installed")

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = (1, 20, 2, 16, 16)


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(run: Callable[[], Any], repeats: int) -> dict[str, float]:
        run()
        return {"ms": 1.0, "p10": 1.0, "p90": 1.0}

    monkeypatch.setattr(kernels, "times_ms", once)
    monkeypatch.setattr(launches, "times_ms", once)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_it_says_that_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="CUDA device"):
        kernels.bench_kernels(device="cpu")


def test_the_scan_is_held_against_every_peer_that_runs() -> None:
    rng = torch.Generator(DEVICE).manual_seed(0)
    found = kernels._bench_scan(SHAPE, torch.float32, DEVICE, rng, 1, ("torch", "mamba-ssm"), tune=False)
    assert found["torch"].keys() == {"forward", "both"}
    for ours in (found["recurra, tf32"], found["recurra, tf32x3"]):
        assert ours["ratio_forward"] == ours["ratio_both"] == 1.0
        assert [part["chunk"] for part in ours["launch"]] == [ours["launch"][0]["chunk"]] * 2
    # a peer that is not installed is named as such
    assert isinstance(found["mamba-ssm, chunks of 64"], dict | str)


def test_the_step_counts_the_bytes_that_it_must_move() -> None:
    weights = kernels._weights(2, 16, 2, 16, 16, np.random.default_rng(0))
    rng = torch.Generator(DEVICE).manual_seed(0)
    found = kernels._bench_step(weights, 3, torch.float32, DEVICE, rng, 1, 1.0)
    # state and window twice, projected row, gamma and beta, y, slot number
    assert found["bytes_per_event"] == 2 * 4 * (16 * 32 + 3 * 64) + 4 * (98 + 4 + 32) + 8


def test_every_launch_is_timed_or_says_why_not() -> None:
    rows = launches.time_launches(device=DEVICE, shape=SHAPE, dtype=torch.float32, launches=[(16, 1, 1), (32, 2, 1)])
    assert [row.keys() for row in rows] == [{"chunk", "warps", "stages", "forward", "saving", "backward"}] * 2


def test_the_best_launch_is_the_fastest_of_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"chunk": 16, "warps": 1, "stages": 1, "forward": 1.0, "saving": 1.0, "backward": 5.0},
        {"chunk": 32, "warps": 2, "stages": 1, "forward": 1.0, "saving": 3.0, "backward": 2.0},
        {"chunk": 32, "warps": 4, "stages": 2, "forward": 9.0, "saving": 2.0, "backward": 4.0},
        {"chunk": 64, "warps": 4, "stages": 2, "error": "OutOfResources: too much"},
    ]
    monkeypatch.setattr(launches, "time_launches", lambda **_: rows)
    forward, backward = launches.best_launches()
    assert (tuple(forward), tuple(backward)) == ((32, 4, 2), (32, 2, 1))
    monkeypatch.setattr(launches, "time_launches", lambda **_: rows[3:])
    with pytest.raises(RuntimeError, match="no launch of the scan works on cuda: OutOfResources: too much"):
        launches.best_launches()
