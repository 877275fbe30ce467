import json

import torch

from recurra.simulations.bench import bench_step


def test_the_report_holds_every_promised_key_and_agrees_with_itself() -> None:
    threads = torch.get_num_threads()
    said: list[str] = []
    report = bench_step(slab=1_100, items=50, rounds=1, state_dtype="bfloat16", progress=said.append)
    assert torch.get_num_threads() == threads
    assert said[-1] == "round 1 of 1"
    assert json.loads(json.dumps(report)) == report
    assert set(report["batch"]) == {"1", "256", "1024"}
    for batch in report["batch"].values():
        assert batch["us_per_event"] > batch["step_only_us"] > 0
        assert abs(batch["events_per_s"] * batch["us_per_event"] / 1e6 - 1) < 1e-2
    peer = report["reencode_200"]["us_per_event"]
    assert abs(report["ratio_256"] * report["batch"]["256"]["us_per_event"] / peer - 1) < 0.05
    assert report["ratio_1"] > 0
    assert report["limit_share"] > 0
    assert report["floor_us"] == max(report["limit_us"], report["multiply_add_limit_us"])
    # by hand: products, convolution, scan of a layer
    assert report["multiply_adds"] == 2 * (64 * 324 + 3 * 16 + 16 * 8 + 4 * 192 + 3 * 128 * 32 + 128 * 64 + 8 * 64 * 64)
    assert report["state_bytes"] < 20_000
