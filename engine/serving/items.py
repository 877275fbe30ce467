"""Items as one version has them: the rows and vectors that it reads, and those that it is searched by."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Bools, Float32s, Int32s
from ..config import RetrievalConfig
from ..events import Item, item_features
from ..model import NewItems, StepWeights
from ..ranking import ndcg, rank
from ..retrieval import ItemIndex, known_scores, top
from ..store import ItemTable

__all__ = ["ServedItems"]


# version row of an item with attributes until a history has it
_UNREAD = -1


class ServedItems:
    """Items of the store under one version, which numbers them in rows of its vocabulary: the two meet by id.

    An item that the version does not know is read as its unknown item and has no vector to be searched by, unless the
    version reads attributes. Then it is read by its record at its first event, which never changes, so that a state
    never depends on when it was folded; and it is searched by its newest record.

    ``table`` returns the store's items; ``add_read`` takes vectors [items, d] to be read, and returns the version row
    of the first of them. Not thread-safe: called under the lock of the caches.
    """

    def __init__(
        self,
        weights: StepWeights,
        vocabulary: Sequence[str],
        table: Callable[[], ItemTable],
        config: RetrievalConfig,
        add_read: Callable[[Float32s], int],
    ) -> None:
        self.vocabulary = {item: row for row, item in enumerate(vocabulary)}
        self.table = table
        # whether an item has a vector to be searched by
        self.known = np.empty(0, np.bool_)
        self.index = ItemIndex(np.empty((0, weights.item_table.shape[1]), np.float32), config)
        self._weights = weights
        self._config = config
        self._add_read = add_read
        self._unknown = len(vocabulary)
        # version rows by store row
        self._to_version = np.empty(0, np.int64)
        # the records behind the search vectors of items that the version does not know
        self._records: dict[int, Item | None] = {}
        self.add(len(table()))

    def add(self, count: int) -> None:
        """Take in the items of further store rows, of which there are ``count`` now."""
        first = self.known.size
        if count <= first:
            return
        ids = self.table().ids(range(first, count))
        rows = np.array([self.vocabulary.get(item or "", self._unknown) for item in ids], np.int64)
        known = rows != self._unknown
        vectors = np.zeros((len(ids), self._weights.item_table.shape[1]), np.float32)
        vectors[known] = self._weights.item_table[rows[known]]
        if self._weights.new_items is not None:
            new = np.flatnonzero(~known)
            rows[new] = _UNREAD
            vectors[new], known[new] = self._by_records((first + new).tolist(), self._weights.new_items)
        self._to_version = np.concatenate((self._to_version, rows))
        self.known = np.concatenate((self.known, known))
        if len(self.index):
            self.index.add(vectors)
        else:
            self.index = ItemIndex(vectors, self._config)

    def update(self, rows: Iterable[int]) -> None:
        """Search those of the items in store rows ``rows`` by their newest records that are searched by records."""
        if self._weights.new_items is None:
            return
        table = self.table()
        changed = [row for row in rows if row in self._records and table.record(row) is not self._records[row]]
        if changed:
            vectors, known = self._by_records(changed, self._weights.new_items)
            self.known = self.known.copy()
            self.known[changed] = known
            self.index.replace(np.array(changed, np.int64), vectors)

    def version_rows(self, items: Int32s) -> npt.NDArray[np.int64]:
        """Return the version rows of store rows that some history has."""
        if items.size and items.max() >= self.known.size:
            # an event was committed and the caches have not taken it in yet
            self.add(len(self.table()))
        rows = self._to_version[items]
        unread = np.unique(items[rows == _UNREAD])
        if unread.size and self._weights.new_items is not None:
            table = self.table()
            features = item_features(map(table.first_record, unread.tolist()), self._weights.config.attributes)
            described = features.counts > 0
            read, _ = self._weights.new_items.vectors(features, self._weights.norm_eps)
            first = self._add_read(read[described])
            self._to_version[unread] = self._unknown
            self._to_version[unread[described]] = np.arange(first, first + int(described.sum()))
            rows = self._to_version[items]
        return rows

    def ndcg(self, vector: Float32s, row: int, allowed: Bools) -> float:
        """Return the NDCG, not cut off at any rank, of the item in store row ``row`` among the allowed ones."""
        self.add(allowed.size)
        asked = allowed & self.known[: allowed.size]
        if row >= asked.size or not asked[row]:
            return 0.0
        scores = self.index.scores(vector)[: asked.size]
        return ndcg(rank(scores[row], scores[asked]), np.inf)

    def scores(self, vector: Float32s, rows: Int32s) -> Float32s:
        """Return the scores of the given store rows; nan for items that the version does not know."""
        return known_scores(self.index.vectors, self.known, vector, rows)

    def similar(self, row: int, k: int, allowed: Bools) -> tuple[Int32s, Float32s]:
        """Return the ``k`` items whose vectors have the highest cosine with the item of store row ``row``."""
        vectors = self.index.vectors
        norms = np.linalg.norm(vectors, axis=1)
        cosine = np.where(allowed, vectors @ vectors[row], -np.inf)
        cosine[allowed] /= np.maximum(norms[allowed] * norms[row], 1e-12)
        best = top(cosine, min(k, int(np.count_nonzero(allowed))))
        return best.astype(np.int32), cosine[best]

    def _by_records(self, rows: list[int], new_items: NewItems) -> tuple[Float32s, Bools]:
        """Return the search vectors of items that the version does not know, and whether their records say anything."""
        table = self.table()
        records = [table.record(row) for row in rows]
        self._records.update(zip(rows, records, strict=True))
        features = item_features(records, self._weights.config.attributes)
        described = features.counts > 0
        _, vectors = new_items.vectors(features, self._weights.norm_eps)
        vectors[~described] = 0.0
        return vectors, described
