"""The last events of the users that were active last: a bounded map, the least recently used user leaves first.

The entries are exactly the tail of the user's history by (time, arrival), so whether a user is here or is loaded from
the history makes no difference to what is learnt.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...kernels.jit import jit

__all__ = ["Contexts", "admit", "drop", "find", "insert", "place", "reserve", "restore", "saved"]


class Contexts(NamedTuple):
    """An open-addressing map from user row to slot, a linked list in order of use, and the slots.

    table    int32 [2^k]            slot + 1 by hash of the user row, linear probing; 0 is empty
    users    int32 [slots]          user row of a slot; -1 is free
    newer    int32 [slots + 1]      next slot towards the newest; the last entry is the ring's anchor
    older    int32 [slots + 1]      next slot towards the oldest
    lengths  int32 [slots]          entries of a slot
    items    int32 [slots, size]    item rows, oldest first
    times    int64 [slots, size]    event times in ms
    """

    table: npt.NDArray[np.int32]
    users: npt.NDArray[np.int32]
    newer: npt.NDArray[np.int32]
    older: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]


def reserve(slots: int, size: int) -> Contexts:
    """Return an empty map for ``slots`` users of ``size`` entries each; memory is touched when it is used."""
    # every slot starts free, in the ring of use: slot 0 is the first to be taken
    ring = np.arange(slots + 1, dtype=np.int32)
    return Contexts(
        table=np.zeros(1 << (2 * slots - 1).bit_length(), np.int32),
        users=np.full(slots, -1, np.int32),
        newer=np.roll(ring, -1),
        older=np.roll(ring, 1),
        lengths=np.zeros(slots, np.int32),
        items=np.zeros((slots, size), np.int32),
        times=np.zeros((slots, size), np.int64),
    )


@jit
def _home(contexts: Contexts, user: int) -> int:
    # Fibonacci hashing: dense rows spread over the table
    return ((user * 2654435769) >> 7) & (contexts.table.size - 1)


@jit
def find(contexts: Contexts, user: int) -> int:
    """Return the slot of a user, or -1; not counted as a use."""
    mask = contexts.table.size - 1
    at = _home(contexts, user)
    while contexts.table[at] != 0:
        slot = contexts.table[at] - 1
        if contexts.users[slot] == user:
            return int(slot)
        at = (at + 1) & mask
    return -1


@jit
def _move(contexts: Contexts, slot: int, newest: bool) -> None:
    newer, older = contexts.newer, contexts.older
    newer[older[slot]] = newer[slot]
    older[newer[slot]] = older[slot]
    anchor = contexts.users.size
    before = older[anchor] if newest else anchor
    after = newer[before]
    older[slot], newer[slot] = before, after
    newer[before] = slot
    older[after] = slot


@jit
def _unmap(contexts: Contexts, user: int) -> None:
    table, mask = contexts.table, contexts.table.size - 1
    hole = _home(contexts, user)
    while contexts.users[table[hole] - 1] != user:
        hole = (hole + 1) & mask
    at = hole
    # close the hole: an entry moves back unless its home lies after the hole
    while True:
        at = (at + 1) & mask
        if table[at] == 0:
            break
        home = _home(contexts, contexts.users[table[at] - 1])
        if ((at - home) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
    table[hole] = 0


@jit
def drop(contexts: Contexts, user: int) -> bool:
    """Free the slot of a user, if it has one."""
    slot = find(contexts, user)
    if slot < 0:
        return False
    _unmap(contexts, user)
    contexts.users[slot] = -1
    contexts.lengths[slot] = 0
    _move(contexts, slot, False)
    return True


@jit
def admit(contexts: Contexts, users: npt.NDArray[np.int32], slots: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Give every user a slot, written to ``slots``; return the positions whose slot is new and empty.

    One call must not name more users than there are slots: then none of them evicts another.
    """
    missing = np.empty(users.size, np.int64)
    count = 0
    mask = contexts.table.size - 1
    for k in range(users.size):
        user = users[k]
        slot = find(contexts, user)
        if slot < 0:
            slot = contexts.newer[contexts.users.size]
            if contexts.users[slot] >= 0:
                _unmap(contexts, contexts.users[slot])
            contexts.users[slot] = user
            contexts.lengths[slot] = 0
            at = _home(contexts, user)
            while contexts.table[at] != 0:
                at = (at + 1) & mask
            contexts.table[at] = slot + 1
            missing[count] = k
            count += 1
        _move(contexts, slot, True)
        slots[k] = slot
    return missing[:count]


@jit
def place(contexts: Contexts, slot: int, time_ms: int) -> int:
    """Return where an event of this time goes among the entries of a slot: after those that are not later."""
    at = contexts.lengths[slot]
    while at > 0 and contexts.times[slot, at - 1] > time_ms:
        at -= 1
    return int(at)


@jit
def insert(contexts: Contexts, slot: int, at: int, item: int, time_ms: int) -> None:
    """Put an event at its place; the oldest entry of a full slot leaves."""
    items, times = contexts.items[slot], contexts.times[slot]
    length = contexts.lengths[slot]
    if length == items.size:
        if at == 0:
            return
        at -= 1
        for k in range(at):
            items[k], times[k] = items[k + 1], times[k + 1]
    else:
        for k in range(length, at, -1):
            items[k], times[k] = items[k - 1], times[k - 1]
        contexts.lengths[slot] = length + 1
    items[at], times[at] = item, time_ms


def _in_use(contexts: Contexts) -> npt.NDArray[np.int64]:
    # the slots in use, the one used longest ago first; not compiled, for a service's end would wait for that
    anchor = contexts.users.size
    older, users = contexts.older.tolist(), contexts.users.tolist()
    slots = []
    slot = older[anchor]
    while slot != anchor and users[slot] >= 0:
        slots.append(slot)
        slot = older[slot]
    return np.array(slots[::-1], np.int64)


def saved(contexts: Contexts) -> dict[str, npt.NDArray[Any]]:
    """Return what has to be kept of the slots, the one used longest ago first."""
    slots = _in_use(contexts)
    lengths = contexts.lengths[slots]
    kept = np.arange(contexts.items.shape[1]) < lengths[:, None]
    return {
        "users": contexts.users[slots],
        "lengths": lengths,
        "items": contexts.items[slots][kept],
        "times": contexts.times[slots][kept],
    }


def restore(contexts: Contexts, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Fill empty slots with what was saved."""
    users, lengths = arrays["users"], arrays["lengths"]
    slots = np.empty(users.size, np.int32)
    admit(contexts, users.astype(np.int32), slots)
    contexts.lengths[slots] = lengths
    kept = np.arange(contexts.items.shape[1]) < lengths[:, None]
    for name in ("items", "times"):
        block = np.zeros((slots.size, contexts.items.shape[1]), arrays[name].dtype)
        block[kept] = arrays[name]
        getattr(contexts, name)[slots] = block
