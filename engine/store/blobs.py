"""Caches kept as files beside the database: large, rewritten whole, and worthless rather than wrong after damage."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError

__all__ = ["Blobs"]

_MAGIC = b"recurra cache 1\n"
_DIGEST = 16
_HEADER = len(_MAGIC) + 16 + 8 + _DIGEST


class Blobs:
    """Named byte strings, each with the store it belongs to and the sequence number it stands at."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, data: bytes, store_id: str, seq: int) -> None:
        """Replace a cache by renaming a complete file over it."""
        target = self._directory / name
        scratch = target.with_name(target.name + ".tmp")
        place = bytes.fromhex(store_id) + seq.to_bytes(8, "little")
        try:
            self._directory.mkdir(exist_ok=True)
            with scratch.open("wb") as file:
                file.write(_MAGIC + place + _checksum(place, data))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise StoreError.of_file(error, f"cannot write the cache {target}") from None

    def get(self, name: str, store_id: str, next_seq: int) -> tuple[bytes, int] | None:
        """Return a cache, None if it is missing, damaged, of another store or ahead of what the store holds."""
        try:
            place, data = self._read(self._directory / name)
        except (OSError, StoreError):
            return None
        seq = int.from_bytes(place[16:], "little")
        return None if place[:16].hex() != store_id or seq > next_seq else (data, seq)

    def damaged(self) -> Iterator[tuple[Path, str]]:
        """Iterate over the caches that are damaged, each with its problem."""
        for path in sorted(self._directory.glob("*")):
            try:
                self._read(path)
            except (OSError, StoreError) as error:
                yield path, str(error)

    def _read(self, path: Path) -> tuple[bytes, bytes]:
        raw = path.read_bytes()
        if len(raw) < _HEADER or not raw.startswith(_MAGIC):
            raise StoreError(f"{path} is not a cache of this release")
        place, data = raw[len(_MAGIC) : _HEADER - _DIGEST], raw[_HEADER:]
        if raw[_HEADER - _DIGEST : _HEADER] != _checksum(place, data):
            raise StoreError(f"the checksum of {path} is wrong")
        return place, data


def _checksum(place: bytes, data: bytes) -> bytes:
    digest = hashlib.blake2b(place, digest_size=_DIGEST)
    digest.update(data)
    return digest.digest()
