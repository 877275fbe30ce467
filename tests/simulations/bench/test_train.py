import json

import torch

from recurra.simulations.bench.train import bench_train


def test_the_report_agrees_with_itself() -> None:
    threads = torch.get_num_threads()
    said: list[str] = []
    report = bench_train(items=60, length=8, threads=2, rounds=1, round_s=0.05, progress=said.append)
    assert torch.get_num_threads() == threads
    assert said[-1] == "round 1 of 1"
    assert json.loads(json.dumps(report)) == report
    fastest = max(report["others"][name]["train_events_per_s"] for name in ("sasrec_prefixes", "streaming_prefixes"))
    assert report["peer"]["train_events_per_s"] == fastest > 0
    assert abs(report["ratio"] * fastest / report["train_events_per_s"] - 1) < 0.1
    assert 0 < report["limit_share"] < 1
    low, high = report["spread"]
    assert low <= report["train_events_per_s"] <= high
