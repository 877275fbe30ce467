"""Search of items by the user's vector: exact while that is fast enough, an inverted-file index beyond."""

import math
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Bools, Float32s, Int32s
from ..kernels.jit import fast_jit, jit
from .config import RetrievalConfig

__all__ = ["ItemIndex", "allowed_rows", "known_scores", "top"]


# fewer allowed rows than this are scored one by one: a gather of 4,096 rows costs less than a filtered search
_GATHER_ROWS = 4_096
# queries on which the recall of the approximate index is measured
_RECALL_QUERIES = 128


@jit
def top(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ``k`` highest scores, best first; equal scores in order of position."""
    if k < scores.size:
        kth = np.partition(scores, scores.size - k)[scores.size - k]
        level = k - np.count_nonzero(scores > kth)
        chosen = np.empty(k, np.int64)
        count = 0
        for c in range(scores.size):
            if scores[c] > kth or (scores[c] == kth and level > 0):
                level -= scores[c] == kth
                chosen[count] = c
                count += 1
    else:
        chosen = np.arange(scores.size)
    return chosen[np.argsort(-scores[chosen], kind="mergesort")]


@fast_jit
def known_scores(vectors: Float32s, known: Bools, query: Float32s, rows: Int32s) -> Float32s:
    """Return the inner products of a query [d] with rows of ``vectors`` [items, d]; nan where not ``known`` [items]."""
    scores = np.empty(rows.size, np.float32)
    for k in range(rows.size):
        row = np.uint32(rows[k])
        if row >= known.size or not known[row]:
            scores[k] = np.nan
            continue
        total = np.float32(0.0)
        for j in range(query.size):
            total += vectors[row, j] * query[j]
        scores[k] = total
    return scores


def allowed_rows(mask: Bools) -> Int32s:
    """Return the rows that a mask allows, ascending."""
    return np.flatnonzero(mask).astype(np.int32)


class ItemIndex:
    """Item vectors by store row, searched by inner product.

    Row r of the index is the item of store row r. Not thread-safe: the engine calls it under its cache lock.
    ``queries`` (vectors of real users, [q, d]) choose how many lists the approximate index probes: as few as reach
    ``config.recall_target`` of the exact answer.
    """

    def __init__(self, vectors: Float32s, config: RetrievalConfig, *, queries: Float32s | None = None) -> None:
        # two spinning thread pools on few cores cost more than the search
        faiss.omp_set_num_threads(1)
        self._config = config
        self._flat = faiss.IndexFlatIP(int(vectors.shape[1]))
        self._flat.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._approximate: faiss.IndexIVFFlat | None = None
        self._attach()
        self.recall: float = 1.0
        if len(self) > config.exact_items:
            self._build(queries)

    def __len__(self) -> int:
        return int(self._flat.ntotal)

    @property
    def vectors(self) -> Float32s:
        """The item vectors, [items, d]: a view that is valid until the next ``add``."""
        return self._vectors

    @property
    def kind(self) -> str:
        """``exact`` or ``ivf``."""
        return "exact" if self._approximate is None else "ivf"

    def add(self, vectors: Float32s) -> None:
        """Append the vectors of the next store rows."""
        block = np.ascontiguousarray(vectors, dtype=np.float32)
        rows = np.arange(len(self), len(self) + len(block))
        self._flat.add(block)
        self._attach()
        if self._approximate is not None:
            self._approximate.add_with_ids(block, rows)

    def replace(self, rows: npt.NDArray[np.int64], vectors: Float32s) -> None:
        """Change the vectors of rows that are there; reads the whole approximate index, if there is one."""
        block = np.ascontiguousarray(vectors, dtype=np.float32)
        self.vectors[rows] = block
        if self._approximate is not None:
            self._approximate.remove_ids(rows)  # type: ignore[arg-type]
            self._approximate.add_with_ids(block, rows)

    def scores(self, query: Float32s, rows: Int32s | None = None) -> Float32s:
        """Return the inner products of a query [d] with the given rows, or with all."""
        return (self._vectors if rows is None else self._vectors[rows]) @ query

    def search(self, query: Float32s, k: int, allowed: Bools | None = None) -> tuple[Int32s, Float32s]:
        """Return the rows and scores of the best ``k`` items, best first.

        ``allowed`` ([items] bool) limits the answer; None allows all. The answer has ``min(k, allowed items)``
        entries: where the approximate index finds fewer, the exact search answers.
        """
        count = len(self) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, count)
        if k == 0:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        if allowed is not None and count <= _GATHER_ROWS:
            rows = allowed_rows(allowed)
            scores = self.scores(query, rows)
            best = top(scores, k)
            return rows[best], scores[best]
        if self._approximate is not None:
            rows, scores = self._run(self._approximate, query, k, allowed)
            if rows.size == k:
                return rows, scores
        return self._run(self._flat, query, k, allowed)

    def _run(self, index: faiss.Index, query: Float32s, k: int, allowed: Bools | None) -> tuple[Int32s, Float32s]:
        # faiss publishes the signatures of its C++ constructors, not those of its Python ones
        parameters: Any = None
        if index is self._approximate:
            parameters = faiss.SearchParametersIVF(nprobe=index.nprobe)  # type: ignore[call-arg]
            parameters.sel = None if allowed is None else self._selector
        elif allowed is not None:
            parameters = self._selected
        if allowed is not None:
            packed = np.packbits(allowed, bitorder="little")
            self._bits[: packed.size] = packed
            self._bits[packed.size :] = 0
        scores, rows = index.search(query.reshape(1, -1), k, params=parameters)
        found = rows[0] >= 0
        return rows[0][found].astype(np.int32), scores[0][found]

    def _attach(self) -> None:
        """Look at the vectors where they lie now, and make a selector of rows, which costs more than to fill it."""
        count, d = len(self), self._flat.d
        self._vectors: Float32s = np.empty((0, d), np.float32)
        if count:
            self._vectors = faiss.rev_swig_ptr(self._flat.get_xb(), count * d).reshape(count, d)
        self._bits = np.zeros((count + 7) // 8, np.uint8)
        self._selector = faiss.IDSelectorBitmap(self._bits)  # type: ignore[arg-type, call-arg]
        self._selected: Any = faiss.SearchParameters()
        self._selected.sel = self._selector

    def _build(self, queries: Float32s | None) -> None:
        count, d = len(self), self._flat.d
        vectors = self.vectors
        lists = max(1, int(4 * math.sqrt(count)))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = 1
        index.train(vectors[:: max(1, count // (40 * lists))])
        index.add_with_ids(vectors, np.arange(count))
        if queries is None or not len(queries):
            queries = vectors[:: max(1, count // _RECALL_QUERIES)]
        sample = np.ascontiguousarray(queries[:_RECALL_QUERIES], dtype=np.float32)
        k = min(self._config.candidates, count)
        truth = self._flat.search(sample, k)[1]
        index.nprobe = 1
        while True:
            found = index.search(sample, k)[1]
            hits = sum(np.intersect1d(t, f).size for t, f in zip(truth, found, strict=True))
            self.recall = hits / truth.size
            if self.recall >= self._config.recall_target or index.nprobe >= lists:
                break
            index.nprobe = min(lists, index.nprobe * 2)
        self._approximate = index
