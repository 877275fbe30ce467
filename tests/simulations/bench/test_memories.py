"""The benchmark of the memories, cut short."""

from recurra.simulations.bench.memories import bench_memories


def test_measures_every_memory_and_the_mixture_apart() -> None:
    result = bench_memories(events=2_200, users=50, items=100, rounds=10)
    learn = result["learn_us"]
    assert 0 < learn["counting"]["batch_512"] < learn["counting"]["batch_1"]
    assert abs(learn["all"] - learn["counting"]["batch_512"] - learn["error"]) < 0.11
    # scoring hundreds of candidates by every part is most of the work
    assert result["mixture_us"] > learn["all"]
    assert set(result["ingest_us"]) == {"states", "errors", "mixture"}
