"""Caches kept as files beside the database: large, rewritten whole, and worthless rather than wrong after damage."""

import hashlib
import os
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
            raise StoreError(f"cannot write the cache {target}: {error.strerror}") from None

    def get(self, name: str, store_id: str, next_seq: int) -> tuple[bytes, int] | None:
        """Return a cache, None if it is missing, damaged, of another store or ahead of what the store holds."""
        try:
            raw = (self._directory / name).read_bytes()
        except OSError:
            return None
        if len(raw) < _HEADER or not raw.startswith(_MAGIC):
            return None
        place = raw[len(_MAGIC) : _HEADER - _DIGEST]
        data = raw[_HEADER:]
        seq = int.from_bytes(place[16:], "little")
        if place[:16].hex() != store_id or seq > next_seq or raw[_HEADER - _DIGEST : _HEADER] != _checksum(place, data):
            return None
        return data, seq


def _checksum(place: bytes, data: bytes) -> bytes:
    digest = hashlib.blake2b(place, digest_size=_DIGEST)
    digest.update(data)
    return digest.digest()
