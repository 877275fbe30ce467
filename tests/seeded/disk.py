"""Model of a database on a disk: every write whole or not at all, some of them not yet on the device, and faults."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recurra.engine.errors import StoreError, StoreFullError
from recurra.engine.store.rocks import Rocks

Records = dict[bytes, bytes]


class Disk:
    """What outlives the process. ``fault`` is asked before every call: it may raise, or kill, or do nothing."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        self.fault = fault
        self.records: Records = {}
        self.changes = 0
        # what was written since the last sync: each as (puts, deletes)
        self._unsynced: list[tuple[list[tuple[bytes, bytes]], list[bytes]]] = []
        self._synced: Records = {}

    def open(self, path: Path, cache_bytes: int, secondary: Path | None) -> "ModelDatabase":
        """Open it as the store does."""
        del cache_bytes
        assert secondary is None
        return ModelDatabase(path, self)

    def write(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        """Make one write visible; the device has it after the next `sync`."""
        self._unsynced.append((puts, deletes))
        self._take(self.records, puts, deletes)
        self.changes += len(puts) + len(deletes)

    def sync(self) -> None:
        """Bring everything to the device."""
        self._synced, self._unsynced = dict(self.records), []

    def lose_power(self, kept: float) -> None:
        """Keep what was synced and a part of what was written after it, from 0 (nothing) to 1 (all)."""
        records = dict(self._synced)
        survivors = self._unsynced[: round(kept * len(self._unsynced))]
        for puts, deletes in survivors:
            self._take(records, puts, deletes)
        self.changes -= sum(len(puts) + len(deletes) for puts, deletes in self._unsynced[len(survivors) :])
        self.records = records
        self.sync()

    @staticmethod
    def _take(records: Records, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        records.update(puts)
        for key in deletes:
            records.pop(key, None)


class ModelDatabase(Rocks):
    """An open handle, in place of RocksDB: after a write that failed it refuses writes until it is opened again."""

    def __init__(self, path: Path, disk: Disk) -> None:
        disk.fault("open")
        self.path = path
        self.damage = None
        self._disk = disk
        self._poisoned: StoreError | None = None

    def sequence(self) -> int:
        return self._disk.changes

    def get(self, key: bytes) -> bytes | None:
        return self._disk.records.get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        self._disk.fault("read")
        return [self._disk.records.get(key) for key in keys]

    def write(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes], *, sync: bool) -> None:
        if self._poisoned is not None:
            raise self._poisoned
        try:
            self._disk.fault("write")
        except StoreFullError as error:
            self._poisoned = error
            raise
        self._disk.write(puts, deletes)
        try:
            # the write is there, and yet its caller is told that it failed
            self._disk.fault("written")
        except StoreError as error:
            self._poisoned = error
            raise
        if sync:
            self._disk.sync()

    def sync(self) -> None:
        if self._poisoned is not None:
            raise self._poisoned
        try:
            self._disk.fault("sync")
        except StoreError as error:
            self._poisoned = error
            raise
        self._disk.sync()

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        found = [
            item for item in self._disk.records.items() if item[0].startswith(prefix) and item[0] >= (start or b"")
        ]
        return iter(sorted(found))

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        return (key for key, _ in self.scan(prefix))

    def last(self, key: bytes) -> bytes | None:
        return max((each for each in self._disk.records if each <= key), default=None)

    def compact(self) -> None:
        pass

    def check_room(self) -> None:
        self._disk.fault("room")

    def checkpoint(self, path: Path) -> None:
        raise NotImplementedError

    def file_bytes(self) -> int:
        return 0

    def close(self) -> Any:
        pass
