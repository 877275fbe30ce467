"""Map of users to slots of a slab, least recently used first to go."""

from collections import OrderedDict

__all__ = ["Residency"]


class Residency:
    """Maps user rows to slots, bounded; the least recently used one gives up its slot.

    Not thread-safe: the engine calls it under its cache lock.
    """

    def __init__(self, slots: int) -> None:
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(slots - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, user: int) -> bool:
        return user in self._slots

    @property
    def full(self) -> bool:
        """Whether the next admission evicts a user."""
        return not self._free

    def find(self, user: int) -> int | None:
        """Return the slot of a user and count this as a touch; None if it has none."""
        slot = self._slots.get(user)
        if slot is not None:
            self._slots.move_to_end(user)
        return slot

    def admit(self, user: int) -> int:
        """Return a slot for a user that has none; the caller fills it before it is read."""
        slot = self._free.pop() if self._free else self._slots.popitem(last=False)[1]
        self._slots[user] = slot
        return slot

    def drop(self, user: int) -> None:
        """Give the slot of a user back, if it has one."""
        slot = self._slots.pop(user, None)
        if slot is not None:
            self._free.append(slot)

    def recent(self, count: int) -> list[int]:
        """Return up to ``count`` users, those touched last first."""
        users: list[int] = []
        for user in reversed(self._slots):
            if len(users) == count:
                break
            users.append(user)
        return users
