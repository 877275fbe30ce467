"""The store's plain model: dictionaries and lists, one event at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recurra.engine.config import StoreConfig
from recurra.engine.events import Event
from recurra.engine.store import APPLIED, DUPLICATE, FUTURE, LATE, TOO_LATE, Reader, Store, event_hash


@dataclass
class PlainUser:
    partition: int
    n: int = 0
    # (time, item, type, weight, hash of the event id) in (time, arrival) order
    history: list[tuple[int, str, str | None, float | None, int]] = field(default_factory=list)
    # items in the order in which they left the history
    gone: list[str] = field(default_factory=list)


class PlainStore:
    """What design and docstrings promise, without rows, blocks, batches or a disk."""

    def __init__(self, keep: int, tolerance_ms: int) -> None:
        self.keep = keep
        self.tolerance_ms = tolerance_ms
        self.users: dict[str, PlainUser] = {}
        self.log: list[tuple[str, str, int]] = []

    def apply(self, event: Event, now_ms: int, partition: int = 0) -> int:
        if event.time_ms > now_ms + self.tolerance_ms:
            return FUTURE
        user = self.users.setdefault(event.user, PlainUser(partition))
        new_hash = 0 if event.id is None else event_hash(event.id)
        for time, item, kind, _, old_hash in user.history:
            if old_hash and new_hash:
                if old_hash == new_hash:
                    return DUPLICATE
            elif (time, item, kind) == (event.time_ms, event.item, event.type):
                return DUPLICATE
        if len(user.history) == self.keep and event.time_ms < user.history[0][0]:
            return TOO_LATE
        late = bool(user.history) and event.time_ms < user.history[-1][0]
        user.history.append((event.time_ms, event.item, event.type, event.weight, new_hash))
        # stable: events of one time stay in order of arrival
        user.history.sort(key=lambda entry: entry[0])
        if len(user.history) > self.keep:
            user.gone.append(user.history.pop(0)[1])
        user.n += 1
        self.log.append((event.user, event.item, event.time_ms))
        return LATE if late else APPLIED

    def forget(self, user: str) -> None:
        self.users.pop(user, None)
        self.log = [entry for entry in self.log if entry[0] != user]

    def export(self, horizon: int = 0) -> dict[str, tuple[Any, ...]]:
        result: dict[str, tuple[Any, ...]] = {}
        for name, user in self.users.items():
            newest_first = list(dict.fromkeys(reversed(user.gone)))
            gone = newest_first[:horizon] if horizon else newest_first
            seen = sorted({*gone, *(entry[1] for entry in user.history)})
            history = [(item, time, kind, weight, digest) for time, item, kind, weight, digest in user.history]
            result[name] = (user.n, user.partition, history, seen)
        return result


def exported(store: Store) -> dict[str, tuple[Any, ...]]:
    return {name: (n, partition, history, seen) for name, n, partition, history, seen in store.export()}


def logged(store: Store, from_seq: int = 0) -> list[tuple[str | None, str | None, int]]:
    entries: list[tuple[str | None, str | None, int]] = []
    for chunk in store.log(from_seq):
        users, items = store.users.ids(chunk.user_rows.tolist()), store.items.ids(chunk.item_rows.tolist())
        entries += zip(users, items, chunk.times_ms.tolist(), strict=True)
    return entries


@pytest.fixture(scope="session")
def plain() -> type[PlainStore]:
    return PlainStore


@pytest.fixture(scope="session")
def contents() -> Callable[[Store], dict[str, tuple[Any, ...]]]:
    return exported


@pytest.fixture(scope="session")
def log_entries() -> Callable[..., list[tuple[str | None, str | None, int]]]:
    return logged


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open stores under the test's folder and close them at its end."""
    opened: list[Reader] = []

    def open_one(name: str = "store", *, read_only: bool = False, **options: Any) -> Reader:
        keys = {key: options.pop(key) for key in list(options) if key in StoreConfig.__struct_fields__}
        kind: type[Reader] = Reader if read_only else Store
        store = kind.open(tmp_path / name, StoreConfig(**keys), **options)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()
