"""Keys of the store, and the bytes of its small records: every value begins with a version byte that is checked.

Histories, seen sets and log chunks are encoded elsewhere (``codec.py``, ``log.py``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from ..errors import StoreFormatError
from ..events import Item

__all__ = [
    "BASE",
    "COUNTERS",
    "FORMAT",
    "FORMAT_KEY",
    "ITEM",
    "LOG",
    "META",
    "MIX",
    "OFFSET",
    "SEEN_ITEMS",
    "SOURCE",
    "TAIL",
    "TYPE",
    "USER",
    "Counters",
    "StoredItem",
    "check_format",
    "decode_blob",
    "decode_counters",
    "decode_item",
    "decode_number",
    "decode_text",
    "encode_blob",
    "encode_counters",
    "encode_item",
    "encode_number",
    "encode_text",
    "log_key",
    "row_key",
    "row_of",
    "seq_of",
]

FORMAT = 1

BASE = b"B"
ITEM = b"I"
LOG = b"L"
META = b"M"
OFFSET = b"O"
SEEN_ITEMS = b"S"
SOURCE = b"N"
TAIL = b"T"
TYPE = b"Y"
USER = b"U"
COUNTERS = META + b"counters"
FORMAT_KEY = META + b"format"
MIX = META + b"mix"

_VERSION = b"\x01"

_Value = TypeVar("_Value")


def row_key(prefix: bytes, row: int) -> bytes:
    """Return the key of a dense row."""
    return prefix + row.to_bytes(4, "big")


def row_of(key: bytes) -> int:
    """Return the dense row of a key; see `row_key`."""
    return int.from_bytes(key[1:], "big")


def log_key(seq: int) -> bytes:
    """Return the key of the log chunk that begins with ``seq``."""
    return LOG + seq.to_bytes(8, "big")


def seq_of(key: bytes) -> int:
    """Return the sequence number with which a log chunk begins; see `log_key`."""
    return int.from_bytes(key[1:], "big")


def check_format(found: str, path: Path) -> None:
    """Raise ``StoreFormatError`` unless ``found`` is the format number of this release."""
    if found.strip() != str(FORMAT):
        raise StoreFormatError(
            f"the store {path} has format {found.strip()[:20]!r}, this release reads format {FORMAT}; "
            "open it with the release that wrote it (nothing was changed)"
        )


class Counters(msgspec.Struct, frozen=True, array_like=True):
    """Numbers that are written with every commit."""

    store_id: str
    # half the length of a history, fixed when the store is made
    anchor: int
    epoch: int = 0
    next_seq: int = 0
    # rows given out, retired ones included
    users: int = 0
    items: int = 0
    types: int = 0
    # changed whenever an item that was there before, or any user's id, changed
    item_changes: int = 0
    forgets: int = 0
    # longest tail block, fixed when the store is made
    tail_events: int = 32


class StoredItem(msgspec.Struct, frozen=True, array_like=True):
    """Record of an item on disk."""

    item: str
    # time of the event that was first applied; -1 while the item is only in the catalogue
    first_ms: int = -1
    # newest catalogue record
    record: Item | None = None
    # catalogue record at the first event: what the model may read of the item, for ever
    first_record: Item | None = None
    # number of the first event that came after the newest catalogue record
    record_seq: int = 0


_encoder = msgspec.msgpack.Encoder()
_counters_decoder = msgspec.msgpack.Decoder(Counters)
_item_decoder = msgspec.msgpack.Decoder(StoredItem)


def encode_blob(data: bytes) -> bytes:
    """Return the value of bytes that belong to others: the mixture's state, a connector's fact about a source."""
    return _VERSION + data


def decode_blob(value: bytes) -> bytes:
    """Return the payload of a value; raises ``ValueError`` for another version byte."""
    if value[:1] != _VERSION:
        raise ValueError(f"unknown record version {value[:1].hex() or 'none'}")
    return value[1:]


def encode_text(text: str) -> bytes:
    """Return the value of an id."""
    return encode_blob(text.encode())


def decode_text(value: bytes) -> str:
    """Read an id; raises ``ValueError`` if it is malformed, as all of these do."""
    return decode_blob(value).decode()


def encode_number(number: int) -> bytes:
    """Return the value of an offset."""
    return encode_blob(b"%d" % number)


def decode_number(value: bytes) -> int:
    """Read an offset."""
    return int(decode_blob(value))


def encode_counters(counters: Counters) -> bytes:
    """Return the value of the counters."""
    return encode_blob(_encoder.encode(counters))


def decode_counters(value: bytes) -> Counters:
    """Read the counters."""
    return _decode(value, _counters_decoder.decode)


def encode_item(item: StoredItem) -> bytes:
    """Return the value of an item record."""
    return encode_blob(_encoder.encode(item))


def decode_item(value: bytes) -> StoredItem:
    """Read an item record."""
    return _decode(value, _item_decoder.decode)


def _decode(value: bytes, decode: Callable[[bytes], _Value]) -> _Value:
    try:
        return decode(decode_blob(value))
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
