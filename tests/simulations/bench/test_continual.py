"""The benchmark of continual training: figures that can only come out if every part does what it says."""

import pytest

from recurra.simulations.bench.continual import bench_continual


@pytest.mark.slow
def test_training_anew_on_the_new_alone_forgets_and_the_change_is_told() -> None:
    result = bench_continual(["finetune", "replay"], progress=lambda _: None)
    assert 0 < result["alarm_events"] < 1_500
    assert result["false_alarms"] == 0
    plain, replayed = (result["strategy"][name] for name in ("finetune", "replay"))
    assert replayed["old_quality"] > plain["old_quality"]
    assert replayed["forgetting"] < plain["forgetting"]
    for figures in (plain, replayed):
        # every round of the diagonal has learnt its cohort, what came later was not known then
        quality = figures["quality"]
        assert quality[0][0] > 5 * quality[0][1]
        assert quality[-1][-1] > quality[0][-1]
        assert 0 < figures["cross_version_recall@10"] < 1
