"""The fast memory: counts that change with every event, in bounded memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ...kernels.arrays import Bools, Float32s, Int32s, Int64s
from ..config import FastConfig
from . import attributes, kernels, neighbours, popularity, snapshots, transitions
from . import contexts as ring
from .tables import Few, Memory, Scratch

__all__ = ["Context", "FastMemory", "LoadContext"]

Arrays = dict[str, npt.NDArray[Any]]
LoadContext = Callable[[int], tuple[Int32s, Int64s]]

_FIRST_ITEMS = 1_024
_FIRST_ENTRIES = 1 << 16
# as the kernels order them: slow and fast decay of the pairs, a third way to look back, and how many events agree
_PAIR_PARTS = (
    "item-knn",
    "item-knn-recent",
    "item-knn-wide",
    "item-knn-support",
    "rules",
    "rules-recent",
    "rules-last",
)
_DIRECT_PARTS = ("transitions", "transitions-recent")
_NO_ROWS: Int32s = np.empty(0, np.int32)


class Context(NamedTuple):
    """The last events of a user, oldest first: item rows and times in ms."""

    items: Int32s
    times_ms: Int64s


class FastMemory:
    """Decayed popularity, co-occurrence, ordered and direct transitions of items, learnt from every event.

    A fold over the applied events in their order: how they are cut into calls makes no difference, and a snapshot
    plus the events after it gives the same arrays as no interruption. A late event is learnt when it arrives.
    Not thread-safe: the engine calls it under its cache lock. The kernels release the GIL.

    ``load_context(user_row)`` gives the last ``config.context`` (items, times in ms) of the user's history, oldest
    first, as they were before the first event of the call that asks. It is called at most once per user and call, and
    only for users that are not among the ``config.contexts`` used last.
    """

    def __init__(self, config: FastConfig) -> None:
        self._config = config
        self._settings = msgspec.json.encode(config).decode()
        popularities = (f"popularity-{half_life:g}" for half_life in config.half_lives)
        described = attributes.PARTS if config.attributes else ()
        self._names = (*popularities, *_PAIR_PARTS, *_DIRECT_PARTS, *described)
        self._start()

    def _start(self) -> None:
        config = self._config
        self._contexts = ring.reserve(config.contexts, config.context)
        first = min(_FIRST_ENTRIES, config.pair_entries)
        never = (transitions.HALF_LIFE, transitions.HALF_LIFE)
        together, after, direct = (
            neighbours.reserve(_FIRST_ITEMS, first, config.neighbours, config.pair_entries, half_lives)
            for half_lives in (config.pair_half_lives, config.pair_half_lives, never)
        )
        popular = popularity.reserve(_FIRST_ITEMS, config.half_lives)
        described = attributes.reserve(_FIRST_ITEMS, config.attributes)
        self._memory = Memory(popular, together, after, direct, described)
        self._events = 0
        self._items = 0
        self._reserve_scratch()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts, in the order of their rows in scores."""
        return self._names

    @property
    def events(self) -> int:
        """Events learnt so far."""
        return self._events

    @property
    def items(self) -> int:
        """Item rows known so far."""
        return self._items

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; those never used are not backed by memory yet."""
        popular, together, after, direct, described = self._memory
        tables = (popular, together, after, direct, described[:-1], described.listed, self._contexts, self._scratch)
        return sum(array.nbytes for table in tables for array in table)

    def learn(self, user_rows: Int32s, item_rows: Int32s, times_ms: Int64s, load_context: LoadContext) -> None:
        """Learn applied events, in the order of application; of at most ``config.contexts`` users."""
        self.begin(user_rows, item_rows, times_ms, load_context)(item_rows.size)

    def begin(
        self, user_rows: Int32s, item_rows: Int32s, times_ms: Int64s, load_context: LoadContext
    ) -> Callable[[int], None]:
        """Return a function that learns as many of the events as it is given, going on from its last call.

        Nothing else may be learnt or forgotten between its calls.
        """
        most = self._config.contexts
        if item_rows.size > most and np.unique(user_rows).size > most:
            raise ValueError(f"one call can learn from at most {most} users, not {np.unique(user_rows).size}")
        self._grow_items(max(self._items, int(item_rows.max(initial=-1)) + 1))
        slots = np.empty(user_rows.size, np.int32)
        for position in ring.admit(self._contexts, user_rows, slots):
            self._load(int(slots[position]), *load_context(int(user_rows[position])))
        first = self._events

        def learn(stop: int) -> None:
            while (done := self._events - first) < stop:
                done = kernels.learn(self._memory, self._contexts, slots, item_rows, times_ms, done, stop, first)
                self._events = first + done
                if done < stop:
                    self._grow_entries()

        return learn

    def describe(self, item_row: int, features: Int32s) -> None:
        """Set the attributes of an item, as features below ``config.attributes``; they count from the next event on."""
        if not self._config.attributes:
            return
        self._grow_items(max(self._items, item_row + 1))
        if not neighbours.headroom(self._memory.attributes.listed, attributes.MOST):
            self._grow_entries()
        attributes.describe(self._memory.attributes, item_row, features[: attributes.MOST], self._events)

    def context(self, user_row: int, load_context: LoadContext) -> Context:
        """Return the last events of a user; nothing changes, so the user is loaded again at the next call."""
        slot = ring.find(self._contexts, user_row)
        if slot < 0:
            items, times = load_context(user_row)
            return Context(np.asarray(items, np.int32), np.asarray(times, np.int64))
        length = self._contexts.lengths[slot]
        return Context(self._contexts.items[slot, :length].copy(), self._contexts.times[slot, :length].copy())

    def holds(self, user_row: int) -> bool:
        """Whether the last events of a user are here, so that ``learn`` will not ask for them."""
        return ring.find(self._contexts, user_row) >= 0

    def parts(self, context: Context, n_items: int) -> dict[str, Float32s]:
        """Return the scores of the item rows below ``n_items`` by every part; nan where a part does not know one."""
        followers = kernels.accumulate(self._memory, context.items, self._events, self._scratch)
        rows = np.arange(n_items, dtype=np.int32)
        scores = kernels.score(self._memory, followers, rows, self._events, self._scratch)
        return dict(zip(self.names, scores, strict=True))

    def assemble(
        self,
        context: Context,
        allowed: Bools,
        excluded: Int32s,
        found: Int32s,
        few: Few,
        *,
        wanted: int,
        least: int,
        parts: int,
    ) -> tuple[Int32s, Float32s]:
        """Return candidates, as item rows that ascend, and their scores by every part [parts, candidates].

        Candidates are the allowed ones of the rows ``found`` elsewhere and of those that the memory's parts would put
        first: ``wanted`` by ``item-knn`` and by ``rules``, a quarter of that by their variants, half by attributes, and
        ``wanted`` popular ones shared out among the half-lives. All allowed rows are taken if they are few, or if the
        sources have fewer than ``least``. Pass all that may not be answered as ``excluded``: a user who has had the
        first few hundred would get nothing else.

        The scores have the memory's parts in the first rows, those of ``few`` at their places, and nan elsewhere and
        where a part does not know an item. The cost depends on the candidates and neighbours, not on the catalogue.
        """
        return kernels.assemble(
            self._memory,
            self._scratch,
            context.items,
            self._events,
            excluded,
            allowed,
            found,
            few,
            wanted,
            least,
            parts,
        )

    def similar(self, item_row: int, count: int) -> tuple[Int32s, Float32s]:
        """Return the items that share most users' last events with an item, best first, and their scores."""
        if not 0 <= item_row < self._items:
            return _NO_ROWS, np.empty(0, np.float32)
        table, counts = self._memory.together, self._memory.popular.counts
        start = int(table.starts[item_row])
        row = slice(start, start + int(table.used[item_row]))
        items = table.keys[row]
        scores = (table.weights[row, 0] / np.sqrt(counts[items] + kernels.SMOOTHING)).astype(np.float32)
        scores /= np.float32(neighbours.inflation(table, 0, self._events))
        order = np.argsort(-scores, kind="stable")[:count]
        return items[order], scores[order]

    def forget(self, user_row: int) -> None:
        """Drop the last events of a user; the counts of items, which name no user, stay."""
        ring.drop(self._contexts, user_row)

    def snapshot(self) -> bytes:
        """Return everything learnt so far as bytes."""
        items, memory = self._items, self._memory
        parts: dict[str, Arrays] = {
            "memory": {"counters": np.array([self._events, items])},
            "popular": popularity.saved(memory.popular, items),
            "together": neighbours.saved(memory.together, items),
            "after": neighbours.saved(memory.after, items),
            "direct": neighbours.saved(memory.direct, items),
            "attributes": attributes.saved(memory.attributes, items),
            "contexts": ring.saved(self._contexts),
        }
        return snapshots.pack(self._settings, parts)

    def restore(self, blob: bytes) -> bool:
        """Take over a snapshot; False if it is damaged or was made under other settings: then nothing is known."""
        self._start()
        parts = snapshots.unpack(self._settings, blob)
        if parts is None:
            return False
        events, items = (int(value) for value in parts["memory"]["counters"])
        self._grow_items(items)
        memory = self._memory
        self._events = events
        self._memory = Memory(
            popularity.restored(memory.popular, parts["popular"]),
            neighbours.restored(memory.together, parts["together"]),
            neighbours.restored(memory.after, parts["after"]),
            neighbours.restored(memory.direct, parts["direct"]),
            attributes.restored(memory.attributes, parts["attributes"]),
        )
        ring.restore(self._contexts, parts["contexts"])
        return True

    def _load(self, slot: int, items: Int32s, times_ms: Int64s) -> None:
        length = min(len(items), self._config.context)
        self._contexts.items[slot, :length] = items[len(items) - length :]
        self._contexts.times[slot, :length] = times_ms[len(items) - length :]
        self._contexts.lengths[slot] = length

    def _grow_items(self, items: int) -> None:
        self._items = items
        popular, together, after, direct, described = self._memory
        capacity = popular.counts.size
        if items <= capacity:
            return
        capacity = max(items, 2 * capacity)
        self._memory = Memory(
            popularity.grown(popular, capacity),
            neighbours.grown(together, items=capacity),
            neighbours.grown(after, items=capacity),
            neighbours.grown(direct, items=capacity),
            attributes.grown(described, items=capacity),
        )
        self._reserve_scratch()

    def _grow_entries(self) -> None:
        popular, together, after, direct, described = self._memory
        room = 2 * self._config.context
        self._memory = Memory(
            popular,
            neighbours.grown(together, entries=_more(together, room)),
            neighbours.grown(after, entries=_more(after, room)),
            neighbours.grown(direct, entries=_more(direct, room)),
            attributes.grown(described, entries=_more(described.listed, attributes.MOST)),
        )

    def _reserve_scratch(self) -> None:
        items = self._memory.popular.counts.size
        touched = kernels.REACH * int(self._memory.together.limits[0])
        self._scratch = Scratch(
            together=np.zeros((items, 4), np.float32),
            after=np.zeros((items, 4), np.float32),
            touched=np.zeros((2, touched), np.int32),
            weights=np.zeros((2, self._config.attributes), np.float32),
            weighed=np.zeros(kernels.REACH * attributes.MOST, np.int32),
            counts=np.zeros(3, np.int64),
            marks=np.zeros(items, np.int8),
        )


def _more(table: neighbours.Neighbours, additions: int) -> int:
    """Return the entries that a table needs to take so many additions: those that it has, or twice as many."""
    size = table.keys.size
    return size if neighbours.headroom(table, additions) else min(2 * size, int(table.limits[3]))
