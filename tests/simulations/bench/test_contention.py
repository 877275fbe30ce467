"""The benchmark of serving beside training, cut short."""

import pytest

from recurra.simulations.bench.contention import bench_contention

pytestmark = pytest.mark.slow


def test_measures_with_training_and_without_it_in_turns() -> None:
    result = bench_contention(rounds=2, seconds=1.0)
    off, on = result["training_off"], result["training_on"]
    assert off["training_processors"] < 0.01 < on["training_processors"]
    assert min(off["query_p99_ms"], on["query_p99_ms"], off["ingest_events_per_s"], on["ingest_events_per_s"]) > 0
    assert result["query_p99_ratio"] == pytest.approx(on["query_p99_ms"] / off["query_p99_ms"], abs=1e-3)
