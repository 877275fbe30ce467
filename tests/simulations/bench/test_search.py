import faiss
import numpy as np
import pytest

from recurra.engine.errors import InputError
from recurra.simulations.bench.search import bench_search, compare, inverted_lists, item_vectors


def test_without_a_gpu_it_says_in_a_sentence_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(InputError, match="install faiss-gpu in place of faiss-cpu"):
        bench_search(100)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(InputError, match="finds none"):
        bench_search(100)


def test_indexes_are_compared_with_the_first_one() -> None:
    faiss.omp_set_num_threads(1)
    vectors, queries = item_vectors(2_000, 0)
    queries = queries[:300]
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    lists = inverted_lists(vectors, queries, exact.search(queries, 10)[1])
    assert 1 <= lists.nprobe < lists.nlist
    ticks = iter(np.arange(0, 1e6, 0.5))
    found = compare({"cpu exact": exact, "other": lists}, queries, 10, seconds=3.0, clock=lambda: float(next(ticks)))
    assert found["cpu exact"]["recall"] == 1.0
    assert 0.95 <= found["other"]["recall"] < 1.0
    # the clock moves half a second each time that it is read
    assert found["other"]["batch_1"] == {"qps": 2.0, "p50_ms": 500.0, "p99_ms": 500.0}
    assert found["other"]["batch_256"]["qps"] == 512.0


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds() -> None:
    if not getattr(faiss, "get_num_gpus", int)():
        pytest.skip("this FAISS has no GPU part, or there is no CUDA device")
    report = bench_search(20_000, seconds=0.1)
    recall = {name: figures["recall"] for name, figures in report["indexes"].items()}
    assert recall["gpu exact"] > 0.999
    assert abs(recall["gpu ivf"] - recall["cpu ivf"]) < 0.001
