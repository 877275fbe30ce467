"""Small tables that are held in memory whole: ids, items, types, offsets, counters."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import ConfigError, StoreCorruptError
from .ids import IdMap, ItemTable
from .records import (
    COUNTERS,
    FORMAT,
    FORMAT_KEY,
    ITEM,
    OFFSET,
    SOURCE,
    TYPE,
    USER,
    Counters,
    StoredItem,
    check_format,
    decode_blob,
    decode_counters,
    decode_item,
    decode_number,
    decode_text,
    encode_counters,
    encode_item,
    encode_text,
    row_key,
    row_of,
)
from .rocks import Rocks

__all__ = ["Changes", "Tables"]

_Value = TypeVar("_Value")


class Changes(Protocol):
    """What `Tables.records` and `Tables.publish` need to know of a commit."""

    new_users: dict[str, int]
    new_types: dict[str, int]
    changed_items: dict[int, StoredItem]
    forgotten: list[int]


class Tables:
    """Everything that is held in memory whole. Changed only by `load` and, after a commit, by `publish`.

    A reader beside a writer loads again and again; maps are replaced rather than changed where rows changed.
    """

    def __init__(self, path: Path, anchor: int) -> None:
        self._path = path
        self._anchor = anchor
        self.counters = Counters("", anchor)
        self.users, self.items, self.types = IdMap(), ItemTable(), IdMap()
        self.offsets: dict[str, int] = {}
        self.source_info: dict[str, bytes] = {}

    def load(self, db: Rocks) -> bool:
        """Read what is not known yet; False if the database is new and empty."""
        found = db.get(FORMAT_KEY)
        if found is None:
            if next(db.scan(b""), None) is not None:
                raise StoreCorruptError(f"the store {self._path} holds records but not its own format; restore a copy")
            return False
        check_format(found.decode(errors="replace"), self._path)
        counters = self._read_counters(db)
        if counters.anchor != self._anchor:
            raise ConfigError(
                f"the store {self._path} was made with store.anchor = {counters.anchor}, not {self._anchor}; "
                "set it back or build a new store from the source"
            )
        self._refresh(counters)
        self._read_users(db, len(self.users))
        self._read_items(db, len(self.items))
        self._read_small(db)
        return True

    def records(self, counters: Counters, changes: Changes) -> list[tuple[bytes, bytes]]:
        """Return the table records of a commit."""
        puts = [(row_key(USER, row), encode_text(name)) for name, row in changes.new_users.items()]
        puts += [(row_key(TYPE, row), encode_text(name)) for name, row in changes.new_types.items()]
        puts += [(row_key(ITEM, row), encode_item(item)) for row, item in changes.changed_items.items()]
        puts.append((COUNTERS, encode_counters(counters)))
        return puts

    def first_records(self, counters: Counters) -> list[tuple[bytes, bytes]]:
        """Return the records of an empty store."""
        return [(FORMAT_KEY, str(FORMAT).encode()), (COUNTERS, encode_counters(counters))]

    def publish(self, counters: Counters, changes: Changes, offsets: dict[str, int], info: dict[str, bytes]) -> None:
        """Make a commit visible."""
        for row in changes.forgotten:
            self.users.retire(row)
        self.users.add(changes.new_users)
        self.types.add(changes.new_types)
        for row, item in changes.changed_items.items():
            self.items.store(row, item)
        self.offsets.update(offsets)
        self.source_info.update(info)
        self.counters = counters

    def _refresh(self, counters: Counters) -> None:
        """Take over newer counters; where rows changed, a new map will be read."""
        if counters.forgets != self.counters.forgets:
            self.users = IdMap()
        if counters.item_changes != self.counters.item_changes:
            self.items = ItemTable()
        self.counters = counters

    def _read_counters(self, db: Rocks) -> Counters:
        value = db.get(COUNTERS)
        if value is None:
            raise self._corrupt("the counters are missing")
        return self._decoded("the counters", decode_counters, value)

    def _read_users(self, db: Rocks, first: int) -> None:
        for key, value in db.scan(USER, row_key(USER, first)):
            self.users.put(row_of(key), self._decoded("a user id", decode_text, value))
        self.users.grow(self.counters.users)
        expected = self.counters.users - self.counters.forgets
        if self.users.active != expected:
            raise self._corrupt(f"{expected} users are expected, {self.users.active} are there")

    def _read_items(self, db: Rocks, first: int) -> None:
        found = first
        for key, value in db.scan(ITEM, row_key(ITEM, first)):
            self.items.store(row_of(key), self._decoded("an item record", decode_item, value))
            found += 1
        if not found == len(self.items) == self.counters.items:
            raise self._corrupt(f"{self.counters.items} items are expected, {found} are there")

    def _read_small(self, db: Rocks) -> None:
        found = len(self.types)
        for key, value in db.scan(TYPE, row_key(TYPE, found)):
            self.types.put(row_of(key), self._decoded("an event type", decode_text, value))
            found += 1
        if not found == len(self.types) == self.counters.types:
            raise self._corrupt(f"{self.counters.types} event types are expected, {found} are there")
        for key, value in db.scan(OFFSET):
            self.offsets[key[1:].decode()] = self._decoded("an offset", decode_number, value)
        for key, value in db.scan(SOURCE):
            self.source_info[key[1:].decode()] = self._decoded("a fact about a source", decode_blob, value)

    def _decoded(self, what: str, read: Callable[[bytes], _Value], value: bytes) -> _Value:
        try:
            return read(value)
        except ValueError as error:
            raise self._corrupt(f"{what} is malformed: {error}") from None

    def _corrupt(self, problem: str) -> StoreCorruptError:
        return StoreCorruptError(f"the store {self._path} is damaged: {problem}; restore a copy or rebuild it")
