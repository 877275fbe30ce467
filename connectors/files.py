"""Files of events: read whole, put in the order of time, and resumed where a store has got to.

A file is a source like a topic. Its key is ``file:PATH@START``, its offset the number of events taken from it in the
order (time, place in the file); with it the store keeps the length and the hash of the bytes that this order was made
from. A file that has only grown continues as a further source that starts at the old end; one that has changed
otherwise is refused. A last line without a line break may be half written: it waits for the next start. A file with
forget requests keeps the order of its lines, since a request has no time.
"""

import contextlib
import hashlib
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..engine.config import FieldNames
from ..engine.errors import BadEventError, InputError, SourceMismatchError
from ..engine.events import Event, Forget
from .dead_letter import DeadLetters
from .file_content import BOM, PARQUET, check_content, read_content
from .file_formats import FORMATS, detect_format, line_parser, parquet_rows

__all__ = ["EventFile", "Segment", "check_file", "open_segments", "read_events"]

_LOG = logging.getLogger("recurra.source")
_HEAD_BYTES = 4_096


class EventFile(NamedTuple):
    """The events of a file in the order of (time, place in the file).

    ``lines`` are their line or row numbers from 1, ``refused`` counts what could not be read, ``sorted_by_time`` says
    whether the file had this order already.
    """

    events: list[Event | Forget]
    lines: list[int]
    refused: int
    sorted_by_time: bool


class Segment(NamedTuple):
    """A part of a file with its own offset: ``key`` and what the store keeps with it."""

    key: str
    info: dict[str, object]
    events: EventFile


def read_events(
    path: str | Path,
    *,
    format_name: str = "auto",
    fields: FieldNames | None = None,
    dead_letters: DeadLetters | None = None,
    limit: int | None = None,
) -> EventFile:
    """Read a file of events; ``limit`` keeps the first events in the order of time.

    Lines that are no events are counted and, if given, written to ``dead_letters``. Raises ``InputError`` with one
    sentence if the file is missing, not readable, or not of its format at all.
    """
    path = Path(path)
    data = _content(path)
    found = _parse(path, data, 0, _format(path, data, format_name), fields or FieldNames(), dead_letters)
    if limit is None:
        return found
    return found._replace(events=found.events[:limit], lines=found.lines[:limit])


def open_segments(
    path: str | Path,
    *,
    source_info: Callable[[str], dict[str, object] | None],
    format_name: str = "auto",
    fields: FieldNames | None = None,
    dead_letters: DeadLetters | None = None,
) -> Iterator[Segment]:
    """Yield the parts of a file that are sources, oldest first; parts that the store does not know yet come last.

    A file without a whole line has no part yet. Dead letters are written for parts that the store does not know.
    Raises ``SourceMismatchError`` if the file is not the one that the store has read from, ``InputError`` as
    ``read_events``.
    """
    path = Path(path).resolve()
    data = _content(path)
    kind, names = _format(path, data, format_name), fields or FieldNames()
    start = 0
    while (info := source_info(f"file:{path}@{start}")) is not None:
        end = int(str(info["end"]))
        if end == start:
            # the file was empty then
            break
        if len(data) < end or _digest(data[start:end]) != info["blake2b"]:
            raise SourceMismatchError(
                f"{path} is not the file that this store has read from: its bytes {start} to {end} have changed; "
                "use a new data directory, or put the old file back"
            )
        if kind == "parquet" and len(data) > end:
            raise SourceMismatchError(f"{path} has changed since this store read it; give new events as a new file")
        yield Segment(f"file:{path}@{start}", info, _parse(path, data[:end], start, kind, names, None))
        start = end
    whole = data if kind == "parquet" else data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        _LOG.warning("%s: the last line has no line break yet; it is left for the next start", path)
    if start < len(whole):
        info = {"path": str(path), "format": kind, "start": start, "end": len(whole), "blake2b": _digest(whole[start:])}
        yield Segment(f"file:{path}@{start}", info, _parse(path, whole, start, kind, names, dead_letters))


def _format(path: Path, data: bytes, format_name: str) -> str:
    if format_name not in ("auto", *FORMATS):
        raise InputError(f"expected a format of {', '.join(FORMATS)} or auto, got {format_name!r}")
    found = detect_format(path, data) if format_name == "auto" else format_name
    if data.startswith(PARQUET) and found != "parquet":
        raise InputError(f"{path} looks like a parquet file, not like {found}; give it a name that ends with .parquet")
    return found


def check_file(path: str | Path) -> None:
    """Raise ``InputError`` for a file that cannot be read or is no file of events at all; reads its beginning only."""
    path = Path(path).resolve()
    with _refusals(path), path.open("rb") as file:
        check_content(file.read(_HEAD_BYTES), str(path))


def _content(path: Path) -> bytes:
    with _refusals(path):
        return read_content(path)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"no file at {path}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory; give a file of events") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _parse(
    path: Path, data: bytes, start: int, kind: str, fields: FieldNames, dead_letters: DeadLetters | None
) -> EventFile:
    events: list[Event | Forget] = []
    lines: list[int] = []
    refused, first = 0, ""
    for number, raw, make in _rows(path, data, start, kind, fields):
        try:
            event = make()
        except BadEventError as error:
            refused += 1
            first = first or f"line {number}: {error}"
            if dead_letters is not None:
                dead_letters.write(f"file:{path}", number, raw, str(error))
            continue
        events.append(_shared_ids(event))
        lines.append(number)
    if dead_letters is not None:
        dead_letters.flush()
    if refused:
        _LOG.warning("%s: %d lines are no events and were left out; the first is %s", path, refused, first)
    return _in_order(events, lines, refused)


def _rows(
    path: Path, data: bytes, start: int, kind: str, fields: FieldNames
) -> Iterator[tuple[int, bytes, Callable[[], Event | Forget]]]:
    if kind == "parquet":
        for number, (text, make) in enumerate(parquet_rows(path, fields), 1):
            yield number, text.encode(), make
        return
    headed = kind in ("inter", "csv")
    first = data.split(b"\n", 1)[0].rstrip(b"\r").removeprefix(BOM) if headed else b""
    parse = line_parser(kind, first.decode(errors="replace") if first else None, fields, path)
    number = data.count(b"\n", 0, start)
    lines = data[start:].removeprefix(BOM) if start == 0 else data[start:]
    for raw in lines.split(b"\n"):
        number += 1
        raw = raw.rstrip(b"\r")
        if raw.strip() and not (headed and number == 1):
            yield number, raw, lambda raw=raw: parse(_text(raw))  # type: ignore[misc]


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadEventError(f"not valid UTF-8: {error}") from None


def _shared_ids(event: Event | Forget) -> Event | Forget:
    # one string per id instead of one per line
    if isinstance(event, Forget):
        return event
    user, item = sys.intern(event.user), sys.intern(event.item)
    return Event(user, item, event.time_ms, event.type, event.weight, event.id)


def _in_order(events: list[Event | Forget], lines: list[int], refused: int) -> EventFile:
    times = [event.time_ms for event in events if isinstance(event, Event)]
    in_order = all(earlier <= later for earlier, later in itertools.pairwise(times))
    if in_order or len(times) < len(events):
        return EventFile(events, lines, refused, in_order)
    order = sorted(range(len(events)), key=times.__getitem__)
    return EventFile([events[at] for at in order], [lines[at] for at in order], refused, False)
