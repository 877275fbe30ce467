"""Search of items by the user's vector: exact while that is fast enough, an inverted-file index beyond."""

import math
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from .config import RetrievalConfig

__all__ = ["ItemIndex", "allowed_rows", "top"]

Rows = npt.NDArray[np.int32]
Vectors = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# fewer allowed rows than this are scored one by one: a gather of 4,096 rows costs less than a filtered search
_GATHER_ROWS = 4_096
# queries on which the recall of the approximate index is measured
_RECALL_QUERIES = 128


def top(scores: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ``k`` highest scores, best first; equal scores in order of position."""
    if k < scores.size:
        kth = np.partition(scores, scores.size - k)[scores.size - k]
        above = np.flatnonzero(scores > kth)
        level = np.flatnonzero(scores == kth)[: k - above.size]
        chosen = np.sort(np.concatenate((above, level)))
    else:
        chosen = np.arange(scores.size)
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def allowed_rows(mask: Mask) -> Rows:
    """Return the rows that a mask allows, ascending."""
    return np.flatnonzero(mask).astype(np.int32)


class ItemIndex:
    """Item vectors by store row, searched by inner product.

    Row r of the index is the item of store row r. Not thread-safe: the engine calls it under its cache lock.
    ``queries`` (vectors of real users, [q, d]) choose how many lists the approximate index probes: as few as reach
    ``config.recall_target`` of the exact answer.
    """

    def __init__(self, vectors: Vectors, config: RetrievalConfig, *, queries: Vectors | None = None) -> None:
        # two spinning thread pools on few cores cost more than the search
        faiss.omp_set_num_threads(1)
        self._config = config
        self._flat = faiss.IndexFlatIP(int(vectors.shape[1]))
        self._flat.add(np.ascontiguousarray(vectors, dtype=np.float32))
        self._approximate: faiss.IndexIVFFlat | None = None
        self.recall: float = 1.0
        if len(self) > config.exact_items:
            self._build(queries)

    def __len__(self) -> int:
        return int(self._flat.ntotal)

    @property
    def vectors(self) -> Vectors:
        """The item vectors, [items, d]: a view that is valid until the next ``add``."""
        if not len(self):
            return np.empty((0, self._flat.d), np.float32)
        view: Vectors = faiss.rev_swig_ptr(self._flat.get_xb(), len(self) * self._flat.d)
        return view.reshape(len(self), self._flat.d)

    @property
    def kind(self) -> str:
        """``exact`` or ``ivf``."""
        return "exact" if self._approximate is None else "ivf"

    def add(self, vectors: Vectors) -> None:
        """Append the vectors of the next store rows."""
        block = np.ascontiguousarray(vectors, dtype=np.float32)
        rows = np.arange(len(self), len(self) + len(block))
        self._flat.add(block)
        if self._approximate is not None:
            self._approximate.add_with_ids(block, rows)

    def replace(self, rows: npt.NDArray[np.int64], vectors: Vectors) -> None:
        """Change the vectors of rows that are there; reads the whole approximate index, if there is one."""
        block = np.ascontiguousarray(vectors, dtype=np.float32)
        self.vectors[rows] = block
        if self._approximate is not None:
            self._approximate.remove_ids(rows)  # type: ignore[arg-type]
            self._approximate.add_with_ids(block, rows)

    def scores(self, query: Vectors, rows: Rows | None = None) -> Vectors:
        """Return the inner products of a query [d] with the given rows, or with all."""
        vectors = self.vectors
        return (vectors if rows is None else vectors[rows]) @ query

    def search(self, query: Vectors, k: int, allowed: Mask | None = None) -> tuple[Rows, Vectors]:
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

    def _run(self, index: faiss.Index, query: Vectors, k: int, allowed: Mask | None) -> tuple[Rows, Vectors]:
        # faiss publishes the signatures of its C++ constructors, not those of its Python ones
        parameters: Any = None
        if index is self._approximate:
            parameters = faiss.SearchParametersIVF(nprobe=index.nprobe)  # type: ignore[call-arg]
        elif allowed is not None:
            parameters = faiss.SearchParameters()
        if allowed is not None:
            # the packed mask has to outlive the call: the selector only points at it
            bits = np.packbits(allowed, bitorder="little")
            parameters.sel = faiss.IDSelectorBitmap(bits)  # type: ignore[arg-type, call-arg]
        scores, rows = index.search(query.reshape(1, -1), k, params=parameters)
        found = rows[0] >= 0
        return rows[0][found].astype(np.int32), scores[0][found]

    def _build(self, queries: Vectors | None) -> None:
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
