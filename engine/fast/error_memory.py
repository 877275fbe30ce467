"""Error memory: items that followed user vectors like the present one, after ReLoop2 (arXiv 2306.08808)."""

from typing import NamedTuple

import numpy as np

from ...kernels.arrays import Float32s, Int32s, Int64s
from ...kernels.jit import fast_jit, jit
from ..retrieval import top

__all__ = ["BLOCK", "ErrorMemory", "Moment"]


# events of the log that begin to vote together, and are learnt together at most where one is a lesson of the mixture
BLOCK = 16
# neighbours that vote
_NEAREST = 200
# what a vote for an item counts that the model puts among its first ones anyway
_EXPECTED = np.float32(0.2)
_NOBODY = -1


class Moment(NamedTuple):
    """The moment before event ``seq`` of the log. The memory may not have learnt all events before it yet.

    ``renewed`` are the rows of users with a new anchor that it does not know of: their older entries are gone by then.
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
        self._vectors: Float32s = np.zeros((events, d), np.float32)
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

    def vote(self, vector: Float32s, expected: Int32s, at: Moment) -> tuple[Int32s, Float32s]:
        """Return the items that came after the nearest vectors, the nearest first, and the cosine of each.

        Events before the block that ``at`` falls in vote; of equal cosines the newest goes first. So a vote does not
        depend on how many events of the block were learnt. Cosines for the items that are ``expected``, the model's own
        first ones, are cut down: what it gets wrong counts. An item may come several times; its cosines are to be
        added.
        """
        cosines = _cosines(self._vectors, vector)
        block = at.seq - at.seq % BLOCK
        return _votes(cosines, self._users, self._items, self._seqs, block, at.renewed, expected)

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


@fast_jit
def _cosines(vectors: Float32s, vector: Float32s) -> Float32s:
    # of unit vectors [entries, d], or zeros, with a vector [d]
    cosines = np.empty(vectors.shape[0], np.float32)
    norm = np.sqrt(np.sum(vector * vector))
    for k in range(cosines.size):
        total = np.float32(0.0)
        for j in range(vector.size):
            total += vectors[k, j] * vector[j]
        cosines[k] = total / norm
    return cosines


@jit
def _votes(
    cosines: Float32s, users: Int32s, items: Int32s, seqs: Int64s, stop: int, renewed: Int32s, expected: Int32s
) -> tuple[Int32s, Float32s]:
    # newest first; the entries of a block are about to be overwritten, whether they were yet or not
    places = np.empty(users.size, np.int64)
    count = 0
    place = stop % users.size
    for seq in range(stop - 1, max(stop + BLOCK - users.size, 0) - 1, -1):
        place = (place if place else users.size) - 1
        # an empty entry is at a right angle to everything
        if seqs[place] == seq and users[place] >= 0 and cosines[place] > 0.0 and not _among(users[place], renewed):
            places[count] = place
            count += 1
    nearest = places[top(cosines[places[:count]], _NEAREST)]
    found, votes = items[nearest], cosines[nearest]
    for k in range(found.size):
        for item in expected:
            if item == found[k]:
                votes[k] *= _EXPECTED
    return found, votes
