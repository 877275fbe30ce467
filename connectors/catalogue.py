"""Catalogues: files of item records in the forms that the published data sets have."""

import csv
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..engine.config import FieldNames
from ..engine.errors import BadEventError, InputError
from ..engine.events import Decoder, Item, input_problem
from .dead_letter import DeadLetters
from .file_content import BOM, PARQUET, check_names, read_content

__all__ = ["Catalogue", "read_items"]

_LOG = logging.getLogger("recurra.source")

_LineParser = Callable[[str], Item]


class Catalogue(NamedTuple):
    """The records of the catalogue file ``name`` in its order, and how many lines could not be read."""

    items: list[Item]
    refused: int
    name: str = ""

    def by_item(self) -> dict[str, Item]:
        """Return the records by their item's id; of several of one item the last one counts, as in a store."""
        return {item.item: item for item in self.items}


def read_items(
    path: str | Path, *, fields: FieldNames | None = None, dead_letters: DeadLetters | None = None
) -> Catalogue:
    """Read item records from ``.item`` (typed header), ``movies.dat``, ``movies.csv`` or JSON lines.

    ``fields.item`` may name the column or field of the id. Lines that are no records are counted, warned of and, if
    given, written to ``dead_letters``. Raises ``InputError`` with one sentence if the file is missing or not of such a
    form.
    """
    path = Path(path)
    try:
        data = read_content(path)
    except OSError as error:
        raise InputError(f"cannot read the catalogue {path}: {error.strerror}") from None
    if data.startswith(PARQUET):
        raise InputError(f"{path} looks like a parquet file; write the catalogue as CSV or JSON lines")
    items: list[Item] = []
    refused, first = 0, ""
    for number, raw, parse in _rows(path, data, fields or FieldNames()):
        try:
            items.append(_checked(parse(raw.decode())))
        except (BadEventError, UnicodeDecodeError, csv.Error) as error:
            refused += 1
            first = first or f"line {number}: {error}"
            if dead_letters is not None:
                dead_letters.write(f"file:{path}", number, raw, str(error))
    if dead_letters is not None:
        dead_letters.flush()
    if refused:
        _LOG.warning("%s: %d lines are no records and were left out; the first is %s", path, refused, first)
    return Catalogue(items, refused, path.name)


def _checked(item: Item) -> Item:
    if (problem := input_problem(item)) is not None:
        raise BadEventError(problem)
    return item


def _rows(path: Path, data: bytes, fields: FieldNames) -> Iterator[tuple[int, bytes, _LineParser]]:
    lines = data.removeprefix(BOM).split(b"\n")
    first = lines[0].decode(errors="replace").rstrip("\r")
    headed, parse = _parser(path, first, fields)
    for number, raw in enumerate(lines, 1):
        if raw.strip() and not (headed and number == 1):
            yield number, raw.rstrip(b"\r"), parse


def _parser(path: Path, first: str, fields: FieldNames) -> tuple[bool, _LineParser]:
    if first.lstrip().startswith("{"):
        return False, Decoder(fields).item
    for separator in ("::", "#"):
        if first.count(separator) >= 2 and ":token" not in first:
            return False, _fields_parser(separator)
    if ":token" in first:
        return True, _table_parser(path, first, "\t", fields)
    return True, _table_parser(path, first, ",", fields)


def _fields_parser(separator: str) -> _LineParser:
    def parse(line: str) -> Item:
        # a title may hold the separator, an id and a genre do not
        item, found, rest = line.partition(separator)
        title, also, genres = rest.rpartition(separator)
        if not found or not also or not item:
            raise BadEventError(f"expected item, title and categories between {separator!r}, got {line[:60]!r}")
        return Item(item, title or None, _genres(genres, "|"))

    return parse


def _table_parser(path: Path, header: str, separator: str, fields: FieldNames) -> _LineParser:
    names = [name.split(":", 1)[0].strip().strip('"') for name in header.split(separator)]
    lowered = [name.lower() for name in names]

    def find(*usual: str) -> int:
        return next((lowered.index(name) for name in usual if name in lowered), -1)

    item_at = find(fields.item.lower(), "item", "item_id", "movieid", "movie_id", "itemid")
    title_at = find("title", "movie_title", "name")
    genres_at = find("genres", "class", "categories", "category", "genre")
    if item_at < 0:
        raise InputError(f"{path}: expected a header with an item column (item_id, movieId, ...), got {header[:80]!r}")
    read = {lowered[at] for at in (item_at, title_at, genres_at) if at >= 0}
    check_names([low if low in read else name for name, low in zip(names, lowered, strict=True)], path)
    further = [at for at in range(len(names)) if at not in (item_at, title_at, genres_at)]
    # the typed form separates the words of a list by spaces, the others by bars
    inside = " " if separator == "\t" else "|"

    def parse(line: str) -> Item:
        cells = next(csv.reader([line])) if separator == "," else line.split(separator)
        if len(cells) != len(names):
            raise BadEventError(f"expected {len(names)} columns, got {len(cells)}")
        if not cells[item_at]:
            raise BadEventError("the item id is empty")
        title = (cells[title_at] or None) if title_at >= 0 else None
        categories = _genres(cells[genres_at], inside) if genres_at >= 0 else ()
        return Item(cells[item_at], title, categories, True, {names[at]: cells[at] for at in further if cells[at]})

    return parse


def _genres(text: str, separator: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(separator) if name.strip() and "no genres" not in name)
