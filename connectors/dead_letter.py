"""Dead letters: input that could not be applied, kept with its position and the reason."""

import base64
import json
import os
from pathlib import Path
from typing import IO, Protocol

__all__ = ["DeadLetters", "FileDeadLetters", "read_dead_letters"]


class DeadLetters(Protocol):
    """Where refused input goes.

    A source calls ``write`` for every message that it cannot hand to the engine and ``flush`` before it moves past
    them; after ``flush`` returned they survive a crash. After a crash in between, or a retry, a letter may be repeated.
    Both raise ``OSError`` or ``BrokerError`` if the letter could not be kept; the source then waits and tries again.
    """

    def write(self, source: str, position: int, payload: bytes | None, reason: str) -> None:
        """Keep one message: its original bytes (None = a tombstone), where it came from and why it was refused."""
        ...

    def flush(self) -> None:
        """Return once everything written before is safe."""
        ...

    def close(self) -> None:
        """Flush and release; nothing may be written after it."""
        ...


class FileDeadLetters:
    """One JSON object per line: ``source``, ``position``, ``reason`` and the payload as ``text`` or ``base64``.

    The file is opened at the first letter. At ``max_bytes`` it is renamed to ``NAME.1``, which replaces the one before,
    so that at most two files are kept.
    """

    def __init__(self, path: str | Path, max_bytes: int = 64 << 20) -> None:
        self._path = Path(path)
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None

    def write(self, source: str, position: int, payload: bytes | None, reason: str) -> None:
        """Append one letter; the oldest go when two files are full."""
        letter: dict[str, object] = {"source": source, "position": position, "reason": reason, **_readable(payload)}
        line = json.dumps(letter, ensure_ascii=False).encode() + b"\n"
        file = self._file or self._open()
        if file.tell() and file.tell() + len(line) > self._max_bytes:
            self.close()
            self._path.replace(f"{self._path}.1")
            file = self._open()
        file.write(line)

    def flush(self) -> None:
        """Write through to the device."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file; a later letter opens it again."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None

    def _open(self) -> IO[bytes]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = file = self._path.open("a+b")
        # a crash may have left half a line: the next letter must not continue it
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        return file


def read_dead_letters(path: str | Path) -> list[dict[str, object]]:
    """Return the letters of a file, oldest first, each with its ``payload`` as bytes or None; no half lines."""
    letters = []
    for line in Path(path).read_bytes().splitlines():
        try:
            letter = json.loads(line)
        except ValueError:
            continue
        text, encoded = letter.pop("text", None), letter.pop("base64", None)
        payload = base64.b64decode(encoded) if encoded is not None else None if text is None else text.encode()
        letters.append({**letter, "payload": payload})
    return letters


def _readable(payload: bytes | None) -> dict[str, str]:
    if payload is None:
        return {}
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(payload).decode()}
