"""Formats of event files: how a line or a row becomes an event."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ..engine.config import FieldNames
from ..engine.errors import BadEventError, InputError
from ..engine.events import MAX_TIME_MS, TIME_UNITS, Decoder, Event, Forget, input_problem, rfc_3339_ms
from .file_content import BOM, PARQUET, check_names

__all__ = ["FORMATS", "Columns", "LineParser", "detect_format", "line_parser", "parquet_rows", "seconds_to_ms"]

FORMATS = ("inter", "dat", "csv", "parquet", "jsonl")

LineParser = Callable[[str], Event | Forget]

_SUFFIXES = {
    ".inter": "inter", ".dat": "dat", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_USER = ("user", "user_id", "userid", "uid")
_ITEM = ("item", "item_id", "itemid", "iid", "movie_id", "movieid", "product_id", "productid")
# digits of numbers that can still be a time in some unit
_MOST_DIGITS = 22
# the wire format's unit is the millisecond, that of the published data sets the second
_TIME_MS = ("time", "time_ms")
_TIME_S = ("timestamp", "ts", "time_s", "unixtime", "unixreviewtime")
_POSITION = ("position",)
# an order is kept as if one second lay between two positions
_SECONDS = ("s", "position")
_WEIGHT = ("weight", "rating")
_TYPE = ("type", "event_type")
_ID = ("id", "event_id")


def detect_format(path: Path, data: bytes) -> str:
    """Return the format of a file by its suffix, else by its first bytes."""
    known = _SUFFIXES.get(path.suffix.lower())
    if known is not None:
        return known
    line = data[:4096].removeprefix(BOM).split(b"\n", 1)[0]
    for format_name, found in (
        ("parquet", line.startswith(PARQUET)),
        ("jsonl", line.lstrip().startswith(b"{")),
        ("inter", b":token" in line),
        ("dat", b"::" in line),
        ("csv", b"," in line or b"\t" in line or b";" in line),
    ):
        if found:
            return format_name
    raise InputError(f"{path}: cannot recognise the format by name or first line; give one of {', '.join(FORMATS)}")


class Columns(NamedTuple):
    """Which column holds what; -1 where a file has none. ``unit`` is "s", "ms", "us", "ns" or "position"."""

    user: int
    item: int
    time: int
    unit: str
    weight: int
    type: int
    id: int

    @classmethod
    def of(cls, names: Sequence[str], fields: FieldNames, path: Path) -> "Columns | None":
        """Find the columns by name, those of the configuration first; None if user, item or time is not there.

        Raises ``InputError`` if there are two columns of one name.
        """
        plain = [name.strip().split(":", 1)[0].strip().lower() for name in names]

        def find(mapped: str, usual: tuple[str, ...]) -> int:
            for name in (mapped.lower(), *usual):
                if name in plain:
                    return plain.index(name)
            return -1

        unit: str = fields.time_unit
        time = find(fields.time, ())
        for usual, its_unit in ((_TIME_MS, "ms"), (_TIME_S, "s"), (_POSITION, "position")):
            if time < 0:
                time, unit = find(fields.time, usual), its_unit
        user, item = find(fields.user, _USER), find(fields.item, _ITEM)
        if min(user, item, time) < 0:
            return None
        weight, kind, id_ = find(fields.weight, _WEIGHT), find(fields.type, _TYPE), find(fields.id, _ID)
        # those that are read are found by the short name
        read = {plain[place] for place in (user, item, time, weight, kind, id_) if place >= 0}
        check_names([short if short in read else name.strip() for name, short in zip(names, plain, strict=True)], path)
        return cls(user, item, time, unit, weight, kind, id_)


def line_parser(format_name: str, header: str | None, fields: FieldNames, path: Path) -> LineParser:
    """Return the function that turns one line of a file into an event; it raises ``BadEventError`` with the reason."""
    if format_name == "jsonl":
        return Decoder(fields).event
    if format_name == "dat":
        return _columns_parser(Columns(0, 1, 3, "s", 2, -1, -1), lambda line: line.split("::"), 4)
    if header is None:
        raise InputError(f"{path}: expected a header that names the user, item and time columns, but the file is empty")
    for separator in ("\t",) if format_name == "inter" else (",", "\t", ";"):
        split = _splitter(separator)
        columns = Columns.of(split(header), fields, path)
        if columns is not None:
            return _columns_parser(columns, split, len(split(header)))
    raise InputError(
        f"{path}: expected a header with a user, an item and a time column "
        f"(such as user, item, time or userId, movieId, timestamp), got {header[:80]!r}"
    )


def parquet_rows(path: Path, fields: FieldNames) -> Iterator[tuple[str, Callable[[], Event]]]:
    """Yield every row of a parquet file as text for the dead letters and a function that makes the event of it."""
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.DuplicateError as error:
        raise InputError(f"{path}: names a column twice ({error}); rename or remove one of the two") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(f"{path}: not a readable parquet file ({reason}); is it complete?") from None
    columns = Columns.of(frame.columns, fields, path)
    if columns is None:
        raise InputError(f"{path}: expected a user, an item and a time column, got {', '.join(frame.columns)[:200]}")
    frame, columns = _plain(frame, columns)
    for row in frame.iter_rows():
        yield str(row), lambda row=row: _row_event(row, columns)  # type: ignore[misc]


def _plain(frame: pl.DataFrame, columns: Columns) -> tuple[pl.DataFrame, Columns]:
    """Turn dates and durations into integers, also inside lists: Python cannot hold all of them.

    In a column that is read as something else than the time they stay no integers: they are refused row by row.
    """
    time = frame.columns[columns.time]
    if isinstance(frame.schema[time], pl.Datetime):
        frame, columns = frame.with_columns(pl.col(time).dt.epoch("ms")), columns._replace(unit="ms")
    read = {frame.columns[place] for place in columns if isinstance(place, int) and place >= 0}
    changed = []
    for name, kind in frame.schema.items():
        value = pl.col(name).to_physical()
        if kind.is_temporal() and name in read:
            named = pl.struct(value.alias(str(kind.base_type())))
            changed.append(pl.when(pl.col(name).is_not_null()).then(named).alias(name))
        elif kind.is_temporal() or kind.is_nested():
            changed.append(value)
    return frame.with_columns(changed), columns


def seconds_to_ms(text: str) -> int:
    """Turn decimal seconds into integer milliseconds without a detour over floating point; finer digits are cut off."""
    if text.isdigit() and text.isascii() and len(text) < 20:
        return int(text) * 1000
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        raise BadEventError(f"expected a time in seconds, got {text[:40]!r}")
    seconds = Decimal(text)
    if seconds.adjusted() > _MOST_DIGITS:
        raise BadEventError(f"expected a time in seconds, got {text[:40]!r}, which is beyond all dates")
    return math.floor(seconds.scaleb(3))


def _splitter(separator: str) -> Callable[[str], list[str]]:
    # people write spaces beside commas; beside tabs they belong to the cell
    spaced = separator != "\t"

    def split(line: str) -> list[str]:
        if '"' not in line:
            cells = line.split(separator)
            return [cell.strip() for cell in cells] if spaced and " " in line else cells
        try:
            return next(csv.reader([line], delimiter=separator, skipinitialspace=spaced, strict=True))
        except csv.Error as error:
            raise BadEventError(f"not a line of a table: {error}") from None

    return split


def _columns_parser(columns: Columns, split: Callable[[str], list[str]], width: int) -> LineParser:
    user_at, item_at, time_at, unit, weight_at, type_at, id_at = columns

    def time_ms(text: str) -> int:
        if unit == "ms" and text.isdigit() and text.isascii() and len(text) < 20:
            return int(text)
        return _time_ms(text, unit)

    def parse(line: str) -> Event:
        cells = split(line)
        if len(cells) != width:
            raise BadEventError(f"expected {width} columns, got {len(cells)}")
        weight = cells[weight_at] if weight_at >= 0 else ""
        event = Event(
            cells[user_at],
            cells[item_at],
            time_ms(cells[time_at]),
            (cells[type_at] or None) if type_at >= 0 else None,
            _weight(weight) if weight else None,
            (cells[id_at] or None) if id_at >= 0 else None,
        )
        return _checked(event)

    return parse


def _checked(event: Event) -> Event:
    # short ids need no count of their bytes; everything unusual takes the engine's own check
    plain = 0 < len(event.user) <= 128 and 0 < len(event.item) <= 128 and event.type is None and event.id is None
    if not plain or not 0 <= event.time_ms <= MAX_TIME_MS or event.weight is not None:
        problem = input_problem(event)
        if problem is not None:
            hint = " (is it in milliseconds? name the column time_ms)" if event.time_ms > MAX_TIME_MS else ""
            raise BadEventError(problem + hint)
    return event


def _time_ms(text: str, unit: str) -> int:
    text = text.strip()
    # a date, with a T or a space before the time of day
    if ":" in text:
        return rfc_3339_ms(text)
    if unit in _SECONDS:
        return seconds_to_ms(text)
    if re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) is None:
        raise BadEventError(f"expected a time in integer {unit} or as RFC 3339, got {text[:40]!r}")
    return int(text) // TIME_UNITS[unit][1]


def _weight(text: str) -> float | None:
    if text.strip().lower() in ("nan", "null", "none"):
        return None
    if _NUMBER.fullmatch(text.strip()) is None:
        raise BadEventError(f"expected a number as weight, got {text[:40]!r}")
    return float(text)


def _row_event(row: Sequence[Any], columns: Columns) -> Event:
    def text(at: int, name: str) -> str:
        value = row[at]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadEventError(f"expected a string or an integer as {name}, got {value!r:.40}")
        return str(value)

    def optional(at: int, name: str) -> str | None:
        return None if at < 0 or row[at] is None else text(at, name)

    weight = None if columns.weight < 0 else row[columns.weight]
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float | Decimal)):
        raise BadEventError(f"expected a number as weight, got {weight!r:.40}")
    if weight is not None and math.isnan(weight):
        # how tables write that there is none
        weight = None
    return _checked(
        Event(
            text(columns.user, "user"),
            text(columns.item, "item"),
            _cell_ms(row[columns.time], columns.unit),
            optional(columns.type, "type"),
            None if weight is None else float(weight),
            optional(columns.id, "id"),
        )
    )


def _cell_ms(value: Any, unit: str) -> int:
    if isinstance(value, float) and abs(value) > 10.0**_MOST_DIGITS:
        raise BadEventError(f"expected a time, got {value!r}, which is beyond all dates")
    if isinstance(value, float) and math.isfinite(value):
        # the nearest millisecond: a float of today's seconds is off by up to 1e-7 s
        return round(value * 1000) if unit in _SECONDS else _whole(value) // TIME_UNITS[unit][1]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadEventError(f"expected a time, got {value!r:.40}")
    if isinstance(value, int):
        return value * 1000 if unit in _SECONDS else value // TIME_UNITS[unit][1]
    return _time_ms(value, unit)


def _whole(value: float) -> int:
    if not value.is_integer():
        raise BadEventError(f"expected an integer time, got {value!r}")
    return int(value)
