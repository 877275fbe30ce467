"""Content of input files: read in one place, which says at once what can be read as no format at all."""

from collections.abc import Sequence
from pathlib import Path

from ..engine.errors import InputError

__all__ = ["BOM", "PARQUET", "check_content", "check_names", "read_content"]

# a byte order mark is no part of the first line, in no format
BOM = b"\xef\xbb\xbf"
PARQUET = b"PAR1"

_PACKED = (
    (b"\x1f\x8b", "a gzip file", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unzstd"),
    (b"BZh", "a bzip2 file", "bunzip2"),
    (b"\xfd7zXZ\0", "an xz file", "unxz"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unlz4"),
    (b"\x1f\x9d", "a compressed file", "uncompress"),
    (b"PK\x03\x04", "a zip file", "unzip; a spreadsheet is exported as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file", "7z x"),
)
# what follows BZh and a digit in a bzip2 file: the mark of a block, or that of the end
_BZIP2 = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_HEAD = 256


def read_content(path: Path) -> bytes:
    """Return the bytes of a file; raises ``InputError`` as `check_content`, and ``OSError``."""
    data = path.read_bytes()
    check_content(data, str(path))
    if not data.startswith(PARQUET) and b"\n" not in data and b"\r" in data[:-1]:
        raise InputError(f"{path} has line ends of one CR; write them as LF (tr '\\r' '\\n' turns them into that)")
    return data


def check_content(data: bytes, name: str) -> None:
    """Raise ``InputError`` for what is compressed, or text in another encoding than UTF-8; ``name`` says where it is.

    Text in an encoding of one byte per letter is not found: its letters beyond ASCII are refused line by line.
    """
    for mark, kind, command in _PACKED:
        if data.startswith(mark) and (mark != b"BZh" or data[4:10] in _BZIP2):
            raise InputError(f"{name} looks like {kind}; unpack it first ({command})")
    encoding = _wide(data[:_HEAD])
    if encoding is not None:
        raise InputError(
            f"{name} looks like {encoding} text; write it as UTF-8 (iconv -f {encoding} -t UTF-8 turns it into that)"
        )


def check_names(names: Sequence[str], path: Path) -> None:
    """Raise ``InputError`` if a header names a column twice; columns without a name are not compared."""
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise InputError(f"{path}: the header names the column {name!r} twice; rename or remove one of the two")
        seen.add(name)


def _wide(head: bytes) -> str | None:
    """Return the encoding of text whose letters have two or four bytes, None for any other content."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if len(head) < 4:
        return None
    # without a mark: the upper bytes of most letters are zero
    first, second, third, fourth = (_zeros(head[place::4]) for place in range(4))
    if (first, third, fourth) == (0, 1, 1):
        return "UTF-32LE"
    if (first, second, fourth) == (1, 1, 0):
        return "UTF-32BE"
    even, odd = _zeros(head[::2]), _zeros(head[1::2])
    if min(even, odd) == 0 and max(even, odd) > 0.5:
        return "UTF-16BE" if even else "UTF-16LE"
    return None


def _zeros(part: bytes) -> float:
    return part.count(0) / len(part)
