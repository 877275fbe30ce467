"""`bench query --device cuda`: the search of item vectors by FAISS, indexes of the GPU beside those of the CPU."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ...engine.errors import InputError
from ...kernels.arrays import Float32s

__all__ = ["bench_search", "compare", "inverted_lists", "item_vectors"]


_WIDTH = 64
_QUERIES = 4_096
_BATCH = 256
_RECALL_TARGET = 0.95
# centres that items and users lie around, and how far from them: without any, inverted lists would have no sense
_CENTRES, _SPREAD = 1_000, 0.5


def bench_search(
    items: int = 1_000_000, *, k: int = 10, seconds: float = 3.0, threads: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Search ``items`` made-up vectors for the best ``k``, exactly and by inverted lists, on the CPU and on the GPU.

    The GPU has copies of the CPU's indexes, so that the same lists are probed. The CPU has ``threads`` threads, None
    for one per processor. Every index is asked for ``seconds`` seconds one query at a time and 256 at a time. Raises
    ``InputError`` where FAISS has no GPU part or finds no device.
    """
    if not hasattr(faiss, "StandardGpuResources"):
        raise InputError("the FAISS that is installed has no GPU part: install faiss-gpu in place of faiss-cpu")
    if not faiss.get_num_gpus():
        raise InputError("FAISS searches on a CUDA device here, and finds none")
    threads = threads or os.cpu_count() or 1
    faiss.omp_set_num_threads(threads)
    vectors, queries = item_vectors(items, seed)
    exact = faiss.IndexFlatIP(_WIDTH)
    exact.add(vectors)
    lists = inverted_lists(vectors, queries[:_BATCH], exact.search(queries[:_BATCH], k)[1])
    resources = faiss.StandardGpuResources()
    indexes: dict[str, Any] = {"cpu exact": exact, "cpu ivf": lists}
    for kind in ("exact", "ivf"):
        indexes[f"gpu {kind}"] = faiss.index_cpu_to_gpu(resources, 0, indexes[f"cpu {kind}"])
    indexes["gpu ivf"].nprobe = lists.nprobe
    found = compare(indexes, queries, k, seconds=seconds)
    ratios = {
        f"{kind} {batch}": round(found[f"gpu {kind}"][batch]["qps"] / found[f"cpu {kind}"][batch]["qps"], 2)
        for kind in ("exact", "ivf")
        for batch in ("batch_1", f"batch_{_BATCH}")
    }
    settings = {"items": items, "d": _WIDTH, "k": k, "lists": lists.nlist, "probed": lists.nprobe, "seed": seed}
    return {"indexes": found, "times_the_cpu": ratios, "threads": threads, "settings": settings}


def item_vectors(items: int, seed: int) -> tuple[Float32s, Float32s]:
    """Return vectors of items and of users (queries), both around the same centres; float32, 64 wide."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((_CENTRES, _WIDTH), np.float32)

    def draw(count: int) -> Float32s:
        noise = rng.standard_normal((count, _WIDTH), np.float32)
        return centres[rng.integers(_CENTRES, size=count)] + np.float32(_SPREAD) * noise

    return draw(items), draw(_QUERIES)


def inverted_lists(vectors: Float32s, queries: Float32s, truth: NDArray[np.int64]) -> faiss.IndexIVFFlat:
    """Build an index of inverted lists that probes as few of them as reach a recall of 0.95 on ``queries``."""
    items, d = vectors.shape
    lists = max(1, int(4 * items**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 1
    index.train(vectors[:: max(1, items // (40 * lists))])
    index.add(vectors)
    index.nprobe = 1
    while index.nprobe < lists and _recall(index, queries, truth) < _RECALL_TARGET:
        index.nprobe = min(lists, 2 * index.nprobe)
    return index


def compare(
    indexes: Mapping[str, Any],
    queries: Float32s,
    k: int,
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Time each index for ``seconds`` per batch size; its recall is against the first one, which must be exact."""
    truth = next(iter(indexes.values())).search(queries, k)[1]
    found: dict[str, dict[str, Any]] = {}
    for name, index in indexes.items():
        found[name] = {"recall": round(_recall(index, queries, truth), 4)}
        for batch in (1, _BATCH):
            took = _latencies(index, queries, k, batch, seconds, clock)
            found[name][f"batch_{batch}"] = {
                "qps": round(batch * len(took) / sum(took), 1),
                "p50_ms": round(1e3 * statistics.median(took), 4),
                "p99_ms": round(1e3 * float(np.percentile(took, 99)), 4),
            }
    return found


def _recall(index: Any, queries: Float32s, truth: NDArray[np.int64]) -> float:
    found = index.search(queries, truth.shape[1])[1]
    return sum(np.intersect1d(f, t).size for f, t in zip(found, truth, strict=True)) / truth.size


def _latencies(
    index: Any, queries: Float32s, k: int, batch: int, seconds: float, clock: Callable[[], float]
) -> list[float]:
    took: list[float] = []
    begin = clock()
    # one call that does not count
    index.search(queries[:batch], k)
    while not took or clock() - begin < seconds:
        at = len(took) * batch % (len(queries) - batch + 1)
        called = clock()
        index.search(queries[at : at + batch], k)
        took.append(clock() - called)
    return took
