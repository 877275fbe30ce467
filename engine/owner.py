"""Single-writer lock: an advisory flock on the file OWNER, which names its holder and the holder's epoch."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .errors import StoreError, StoreFencedError, StoreInUseError

__all__ = ["Holder", "Owner", "check_free", "kept_free"]

_NAME = "OWNER"


class Holder(msgspec.Struct, frozen=True):
    """The process that opened the store for writing."""

    pid: int
    started: str
    epoch: int


def check_free(directory: Path) -> None:
    """Raise ``StoreInUseError`` naming the holder if a process has the store in ``directory`` open for writing.

    For commands that are about to write: it needs none of the imports of the engine, which take seconds.
    """
    with kept_free(directory):
        pass


@contextlib.contextmanager
def kept_free(directory: Path) -> Iterator[None]:
    """Keep every process from opening the store in ``directory`` for writing; writes nothing there.

    Raises ``StoreInUseError`` as `check_free` does.
    """
    try:
        file = os.open(directory / _NAME, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise StoreError(f"cannot read {directory / _NAME}: {error.strerror}") from None
    try:
        _lock(file, directory)
        yield
    finally:
        os.close(file)


class Owner:
    """Holds the lock from construction to `release`; the system releases it when the process ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME
        self.epoch = 0
        try:
            # python's descriptors are not inherited, so a child cannot keep the lock of a dead parent
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError.of_file(error, f"cannot open the store {directory}") from None
        try:
            _lock(self._file, directory)
        except StoreInUseError:
            os.close(self._file)
            raise
        self._seen = self._stamp()

    @staticmethod
    def holder(directory: Path) -> Holder | None:
        """Return who wrote the file last, None if it is missing or unreadable; says nothing about the lock."""
        try:
            return msgspec.json.decode((directory / _NAME).read_bytes(), type=Holder)
        except (OSError, msgspec.DecodeError):
            return None

    def claim(self, epoch: int, started: str) -> None:
        """Name this process as the holder."""
        self.epoch = epoch
        data = msgspec.json.encode(Holder(os.getpid(), started, epoch))
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)
        self._seen = self._stamp()

    def check(self) -> None:
        """Raise ``StoreFencedError`` if a newer owner has claimed the store; called before every commit."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        holder = self.holder(self._path.parent)
        if holder is None or holder.epoch != self.epoch or holder.pid != os.getpid():
            who = "its owner file is gone"
            if holder is not None:
                who = f"process {holder.pid} owns it at epoch {holder.epoch}"
            raise StoreFencedError(f"this process lost the store {self._path.parent}: {who}, ours was {self.epoch}")
        self._seen = stamp

    def release(self) -> None:
        """Let go of the lock; may be repeated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0, 0
        return found.st_ino, found.st_mtime_ns, found.st_size


def _lock(file: int, directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StoreInUseError(_in_use(directory, Owner.holder(directory))) from None


def _in_use(directory: Path, holder: Holder | None) -> str:
    who = "another process" if holder is None else f"process {holder.pid}, started {holder.started}"
    return f"the store {directory} is in use by {who}; stop it, or talk to it with --url"
