import json

import numpy as np
import pytest
import torch

from recurra.engine.config import ModelConfig
from recurra.engine.model import StreamingModel, gap_features
from recurra.simulations.bench import EagerStep, bench_encode


def test_the_eager_step_is_the_model_s() -> None:
    config = ModelConfig(d_model=16, heads=2, head_dim=8, d_state=8)
    model = StreamingModel(config, 20).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        items = torch.randint(20, (3, 12), generator=generator)
        times_ms = torch.randint(10_000, (3, 12), generator=generator).cumsum(1)
        step, slots = EagerStep(model, 5), torch.tensor([4, 0, 2])
        phi = gap_features(times_ms).float()
        step(slots, torch.full((3,), model.start_row), torch.zeros(3, 3))
        got = [step(slots, items[:, t], phi[:, t]) for t in range(12)]
        want = model(items, times_ms)[:, 1:]
    np.testing.assert_allclose(torch.stack(got, 1), want, rtol=1e-4, atol=1e-5)


def test_the_report_holds_every_promised_key_and_agrees_with_itself() -> None:
    said: list[str] = []
    report = bench_encode(items=50, batches=(1, 2), rounds=1, progress=said.append)
    assert said == ["round 0 of 1", "round 1 of 1"]
    assert json.loads(json.dumps(report)) == report
    assert set(report["ours"]) == {"fold", "scan"}
    sasrec = {f"sasrec_{length}{tail}" for length in (50, 200) for tail in ("", "_pruned")}
    assert set(report["peers"]) == {*sasrec, "eager_step"}
    for entries in (*report["ours"].values(), *report["peers"].values()):
        assert set(entries) == {"1", "2"}
        for entry in entries.values():
            assert entry["limit_share"] > 0
            assert entry["multiply_adds"] > 0
    whole = report["peers"]["sasrec_200"]["2"]["us_per_history"]
    assert report["ratio_2"] == pytest.approx(whole / 200 / report["ours"]["fold"]["2"]["us_per_event"], rel=0.02)
    # by hand: two layers of 12 d^2 for every position and 2 d for every pair
    assert report["peers"]["sasrec_50"]["1"]["multiply_adds"] == 2 * (12 * 64 * 64 * 50 + 2 * 64 * 50 * 51 // 2)
