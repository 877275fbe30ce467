"""High-water mark of what was synced: a small file beside the database that shows when synced changes are missing.

The database's recovery takes the write-ahead log up to the first damage and cannot know what came after it. ``SYNCED``
says how far the log had reached the device; a database that is behind it has lost what was promised. What was found
lost is kept in ``LOST`` until a person has dealt with it.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..errors import StoreCorruptError

__all__ = ["LOST_FILE", "Loss", "Mark", "MarkFile", "losses"]

_MARK_FILE = "SYNCED"
LOST_FILE = "LOST"
_LAYOUT = struct.Struct("<4s16sQQ")
_MAGIC = b"hwm1"


class Mark(NamedTuple):
    """What a store had on the device: the number of its last change, and how many events were ever applied."""

    store_id: str
    sequence: int
    events: int


class Loss(msgspec.Struct, frozen=True):
    """Synced changes that were missing when a store was opened: records, and events among them."""

    opened: str
    changes: int
    events: int

    def __str__(self) -> str:
        return (
            f"{self.events} synced events ({self.changes} records) were missing when the store was opened at "
            f"{self.opened}, its write-ahead log was damaged; what came from a topic or a file is read again, what "
            "came over HTTP or in process must be sent again; `recurra verify --repair` closes this"
        )


class MarkFile:
    """The mark of the store in directory ``path``."""

    def __init__(self, path: Path) -> None:
        self._directory = path
        self.path = path / _MARK_FILE
        self._kept: Mark | None = None

    def read(self) -> Mark | None:
        """Return the mark, None if there is none; raises ``StoreCorruptError`` if it is damaged."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        body, checksum = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        if len(body) < _LAYOUT.size or checksum != zlib.crc32(body).to_bytes(4, "little"):
            raise StoreCorruptError(f"{self.path} is damaged")
        _, store_id, sequence, events = _LAYOUT.unpack(body)
        return Mark(store_id.hex(), sequence, events)

    def write(self, mark: Mark) -> None:
        """Keep a mark whose changes are on the device.

        It is not synced itself: after a power loss it may be an older one, never a newer one. One that cannot be
        written (a full disk) stays behind in the same way.
        """
        if mark == self._kept:
            return
        body = _LAYOUT.pack(_MAGIC, bytes.fromhex(mark.store_id), mark.sequence, mark.events)
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError:
            return
        try:
            os.pwrite(handle, body + zlib.crc32(body).to_bytes(4, "little"), 0)
            self._kept = mark
        except OSError:
            pass
        finally:
            os.close(handle)

    def missing(self, found: Mark) -> tuple[int, int] | None:
        """Return how many synced records, and events among them, a database lacks; None if it lacks none."""
        try:
            promised = self.read()
        except StoreCorruptError:
            # says nothing
            return None
        if promised is None or promised.store_id != found.store_id or promised.sequence <= found.sequence:
            return None
        return promised.sequence - found.sequence, max(0, promised.events - found.events)

    def compare(self, found: Mark) -> Loss | None:
        """Return what a database that was just opened has lost, and keep it in ``LOST``; None if nothing is missing."""
        missing = self.missing(found)
        if missing is None:
            return None
        loss = Loss(datetime.now(UTC).isoformat(timespec="seconds"), *missing)
        with (self._directory / LOST_FILE).open("ab") as file:
            file.write(msgspec.json.encode(loss) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return loss


def losses(path: Path) -> Sequence[Loss]:
    """Return what the store in directory ``path`` was found to have lost, oldest first, until that is closed."""
    try:
        raw = (path / LOST_FILE).read_bytes()
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Loss) for line in raw.splitlines()]
