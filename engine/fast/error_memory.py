"""Error memory: items that followed user vectors like the present one, after ReLoop2 (arXiv 2306.08808)."""

import sys
from typing import NamedTuple

import faiss
import numpy as np

from ...kernels.arrays import Float32s, Int32s, Int64s
from ...kernels.jit import jit

__all__ = ["BLOCK", "ErrorMemory", "Moment"]


# events of the log that are learnt together at most where one of them is a lesson of the mixture
BLOCK = 16
# neighbours that vote
_NEAREST = 200
# what a vote for an item counts that the model puts among its first ones anyway
_EXPECTED = np.float32(0.2)
_NOBODY = -1
_NO_USERS = np.empty(0, np.int32)


class Moment(NamedTuple):
    """The moment before event ``seq`` of the log, when the memory has not learnt all events before it yet.

    ``renewed`` are the rows of users with a new anchor since: their older entries are gone by then.
    """

    seq: int
    renewed: Int32s


class ErrorMemory:
    """The vectors [d] of users before the last ``events`` events of the log, with the items that came.

    An entry stands at its number in the log modulo ``events``, so to learn one again changes nothing. The vectors are
    those of one version, another one has another memory; and of one anchor, so that all of it can be made again
    from the histories. Not thread-safe.
    """

    def __init__(self, events: int, d: int) -> None:
        self.events = events
        self._index = faiss.IndexFlatIP(d)
        self._index.add(np.zeros((events, d), np.float32))
        self._vectors: Float32s = faiss.rev_swig_ptr(self._index.get_xb(), events * d).reshape(events, d)
        self._users = np.full(events, _NOBODY, np.int32)
        self._items = np.zeros(events, np.int32)
        self._seqs = np.full(events, -1, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries, used or not."""
        return int(self._vectors.nbytes + self._users.nbytes + self._items.nbytes + self._seqs.nbytes)

    @property
    def users(self) -> Int32s:
        """The rows of the users whose vectors are here, ascending."""
        users: Int32s = np.unique(self._users[self._users != _NOBODY])
        return users

    def learn(self, seqs: Int64s, users: Int32s, items: Int32s, vectors: Float32s) -> None:
        """Take in events by their numbers in the log; ``vectors`` [events, d] are those before them."""
        _learn(seqs, users, items, vectors, self._users, self._items, self._seqs, self._vectors)

    def vote(self, vector: Float32s, expected: Int32s, at: Moment | None = None) -> tuple[Int32s, Float32s]:
        """Return the items that came after the nearest vectors, the nearest first, and the cosine of each.

        With ``at``, as it was at that moment, up to the block of events that it is in.

        Cosines for the items that are ``expected``, the model's own first ones, are cut down: what it gets wrong
        counts. An item may come several times; its cosines are to be added.
        """
        first, stop = self._window(None if at is None else at.seq)
        renewed = _NO_USERS if at is None else at.renewed
        # those that do not count must not take the place of others
        wanted = _NEAREST if at is None else _NEAREST + 2 * BLOCK
        if renewed.size:
            wanted += int(np.isin(self._users, renewed).sum())
        cosines, places = self._index.search(vector.reshape(1, -1), min(wanted, self.events))
        return _votes(
            cosines[0], places[0], vector, self._users, self._items, self._seqs, first, stop, renewed, expected
        )

    def _window(self, seq: int | None) -> tuple[int, int]:
        """Return the first and the end of the events of the log that a vote looks at; see `vote`."""
        if seq is None:
            return 0, sys.maxsize
        block = seq - seq % BLOCK
        return block + BLOCK - self.events, block

    def forget(self, user: int) -> None:
        """Erase the vectors of a user."""
        own = np.flatnonzero(self._users == user)
        self._vectors[own] = 0.0
        self._users[own] = _NOBODY


@jit
def _learn(
    seqs: Int64s,
    users: Int32s,
    items: Int32s,
    vectors: Float32s,
    to_users: Int32s,
    to_items: Int32s,
    to_seqs: Int64s,
    to_vectors: Float32s,
) -> None:
    for k in range(seqs.size):
        place = seqs[k] % to_users.size
        to_users[place], to_items[place], to_seqs[place] = users[k], items[k], seqs[k]
        norm = np.sqrt(np.sum(vectors[k] * vectors[k]))
        to_vectors[place] = vectors[k] / max(norm, np.float32(1e-12))


@jit
def _among(user: int, users: Int32s) -> bool:
    # without an array for every entry
    count = 0
    for each in users:
        count += int(each == user)
    return count > 0


@jit
def _votes(
    cosines: Float32s,
    places: Int64s,
    vector: Float32s,
    users: Int32s,
    items: Int32s,
    seqs: Int64s,
    first: int,
    stop: int,
    renewed: Int32s,
    expected: Int32s,
) -> tuple[Int32s, Float32s]:
    found, votes = np.empty(places.size, np.int32), np.empty(places.size, np.float32)
    norm = np.sqrt(np.sum(vector * vector))
    count = 0
    for k in range(places.size):
        # an empty entry is at a right angle to everything
        if places[k] < 0 or users[places[k]] < 0 or cosines[k] <= 0.0:
            continue
        if not first <= seqs[places[k]] < stop or _among(users[places[k]], renewed):
            continue
        if count == _NEAREST:
            break
        found[count], votes[count] = items[places[k]], cosines[k] / norm
        for item in expected:
            if item == found[count]:
                votes[count] *= _EXPECTED
        count += 1
    return found[:count], votes[:count]
