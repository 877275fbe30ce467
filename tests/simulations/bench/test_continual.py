"""The benchmark of continual training: figures that can only come out if every part does what it says."""

import pytest

from recurra.engine.config import TrainingConfig
from recurra.simulations.bench.continual import bench_continual


@pytest.mark.slow
def test_the_change_is_told_and_undoes_what_was_learnt() -> None:
    default = TrainingConfig().strategy
    result = bench_continual(["finetune", default], progress=lambda _: None)
    assert 0 < result["alarm_events"] < 1_500
    assert result["false_alarms"] == 0
    assert set(result["strategy"]) == {"finetune", default}
    for figures in result["strategy"].values():
        # the version from before the change knows its own world and nothing of the next one
        quality = figures["quality"]
        assert quality[0][0] > 5 * quality[0][1]
        assert 0 < figures["cross_version_recall@10"] < 1
    assert result["strategy"][default]["old_quality"] >= 0.97
    assert result["strategy"][default]["adapt_events"] <= 2_000
    # what reads only the new events keeps less of the old ones
    assert result["strategy"]["finetune"]["old_quality"] < result["strategy"][default]["old_quality"]
