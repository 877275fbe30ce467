"""Data sets as streams: columns in the order of (time, place in the file), and the catalogue that lies beside them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..connectors.catalogue import Catalogue, read_items
from ..connectors.file_content import BOM, read_content
from ..connectors.file_formats import Columns
from ..connectors.files import read_events
from ..engine.config import FieldNames
from ..engine.errors import InputError
from ..engine.events import Event

__all__ = ["Stream", "catalogue_facts", "load", "load_catalogue"]

_PERIOD = re.compile(r"period_(\d+)\.txt")
_WEEK_MS = 7 * 86_400_000
# in a directory the events are in the first file of these names that is there
_EVENT_FILES = ("*.inter", "ratings.*", "events.*", "*.parquet", "*.jsonl", "*.csv")
# the catalogue beside events of any other name
_ITEM_FILE = "items.jsonl"


@dataclass(frozen=True)
class Stream:
    """Events as columns of one length; position k of every column is the k-th event of the stream.

    ``users`` and ``items`` are codes, numbered in the order of their first event, into ``user_ids`` and ``item_ids``;
    ``types`` are codes into ``type_names``, -1 for none; ``weights`` are nan where there is none; ``order`` is the
    line or row in the source. ``ids`` is None when no event has one. ``clock`` is false when the source has an order
    but no times: the times are then made up, one second (or one period) apart. ``refused`` counts unreadable lines.
    """

    name: str
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    types: NDArray[np.int16]
    weights: NDArray[np.float32]
    order: NDArray[np.int64]
    user_ids: list[str]
    item_ids: list[str]
    type_names: list[str]
    ids: list[str | None] | None = None
    clock: bool = True
    refused: int = 0

    def __len__(self) -> int:
        return len(self.users)

    def event(self, position: int) -> Event:
        """Return one event as the engine takes it."""
        return self.events(position, position + 1)[0]

    def events(self, start: int, end: int) -> list[Event]:
        """Return the events at positions ``start`` .. ``end - 1``."""
        part = slice(start, end)
        kinds: Sequence[str | None] = [None if code < 0 else self.type_names[code] for code in self.types[part]]
        weights = [None if np.isnan(weight) else float(weight) for weight in self.weights[part]]
        users = [self.user_ids[code] for code in self.users[part]]
        items = [self.item_ids[code] for code in self.items[part]]
        ids = self.ids[part] if self.ids is not None else [None] * len(users)
        return list(starmap(Event, zip(users, items, self.time_ms[part].tolist(), kinds, weights, ids, strict=True)))


def load(
    path: str | Path,
    format: str = "auto",
    *,
    fields: FieldNames | None = None,
    shuffle_ties: int | None = None,
    limit: int | None = None,
) -> Stream:
    """Read a file of events, a directory that holds one, or ADER's directory of ``period_K.txt`` files.

    Events are put in the order of (time, place in the file); ``shuffle_ties`` is the seed of a permutation of events
    with equal times. ``fields`` are the names of a configuration's ``[events]``. ``limit`` keeps the first events of
    that order. Raises ``InputError`` with one sentence.
    """
    path = Path(path)
    name = path.name if path.is_dir() else path.stem
    if limit is not None and limit < 1:
        raise InputError(f"expected a limit of at least 1 event, got {limit}")
    if path.is_dir():
        periods = sorted(path.glob("period_*.txt"), key=_period)
        if periods:
            return _read_periods(path, periods, shuffle_ties, limit)
        path = _events_in(path)
    fields = fields or FieldNames()
    found = read_events(path, format_name=format, fields=fields)
    events = [event for event in found.events if isinstance(event, Event)]
    lines = [line for line, event in zip(found.lines, found.events, strict=True) if isinstance(event, Event)]
    if not events:
        raise InputError(f"{path}: no event could be read ({found.refused} lines were refused)")
    return _stream(name, events, lines, shuffle_ties, limit, clock=_has_clock(path, fields), refused=found.refused)


def load_catalogue(
    events: str | Path | None, named: str | Path | None = None, *, fields: FieldNames | None = None
) -> Catalogue | None:
    """Read the catalogue file ``named`` or, if it is None, the one that lies beside ``events``; None if there is none.

    ``events`` is a file or a directory as ``load`` takes it, None for a stream that is in no file. Beside ``X.inter``
    lies ``X.item``, beside ``ratings.*`` ``movies.csv`` or ``movies.dat``; else ``items.jsonl`` is taken. Raises
    ``InputError`` with one sentence.
    """
    if named is not None:
        return read_items(named, fields=fields)
    found = None if events is None else _catalogue_beside(Path(events))
    if found is None:
        return None
    try:
        return read_items(found, fields=fields)
    except InputError as error:
        raise InputError(f"{error} (it lies beside the events; --catalogue none leaves it out)") from None


def catalogue_facts(catalogue: Catalogue | None, used: int, items: int) -> dict[str, int]:
    """Return what a result says of the catalogue, of which ``used`` of ``items`` items had a record."""
    refused = 0 if catalogue is None else catalogue.refused
    return {"records_used": used, "items_without_record": items - used, "records_refused": refused}


def _catalogue_beside(events: Path) -> Path | None:
    if events.is_dir() and not any(events.glob("period_*.txt")):
        events = _events_in(events)
    folder = events if events.is_dir() else events.parent
    names = [_ITEM_FILE]
    if events.suffix == ".inter":
        names.insert(0, events.with_suffix(".item").name)
    elif events.stem == "ratings":
        # the one of the same form first
        names[:0] = sorted(("movies.csv", "movies.dat"), key=lambda name: not name.endswith(events.suffix))
    return next((folder / name for name in names if name != events.name and (folder / name).is_file()), None)


def _events_in(directory: Path) -> Path:
    # a file with the name of a catalogue holds the events only if nothing else does
    for pattern in (*_EVENT_FILES, _ITEM_FILE):
        files = sorted(file for file in directory.glob(pattern) if file.name != _ITEM_FILE or pattern == _ITEM_FILE)
        if len(files) == 1:
            return files[0]
        if files:
            raise InputError(f"{directory} holds {len(files)} files that may be the events; give one of them")
    raise InputError(f"{directory} holds no file of events ({', '.join(_EVENT_FILES)})")


def _has_clock(path: Path, fields: FieldNames) -> bool:
    """Return whether a table has times; one may have a ``position`` only."""
    if path.suffix in (".parquet", ".pq"):
        names = list(pl.read_parquet_schema(path))
    else:
        with path.open("rb") as file:
            header = file.readline(4096).removeprefix(BOM).decode(errors="replace")
        names = re.split(r"[,;\t]", header.strip())
    columns = Columns.of(names, fields, path)
    return columns is None or columns.unit != "position"


def _stream(
    name: str,
    events: Sequence[Event],
    lines: Sequence[int],
    shuffle_ties: int | None,
    limit: int | None,
    *,
    clock: bool,
    refused: int,
) -> Stream:
    times = np.array([event.time_ms for event in events], dtype=np.int64)
    order = np.array(lines, dtype=np.int64)
    chosen = _ordered(times, order, shuffle_ties)[:limit]
    kept = [events[place] for place in chosen.tolist()]
    users, user_ids = _coded([event.user for event in kept])
    items, item_ids = _coded([event.item for event in kept])
    names = sorted({event.type for event in kept if event.type is not None})
    codes = {None: -1, **{kind: code for code, kind in enumerate(names)}}
    return Stream(
        name=name,
        users=users,
        items=items,
        time_ms=times[chosen],
        types=np.array([codes[event.type] for event in kept], dtype=np.int16),
        weights=np.array([np.nan if event.weight is None else event.weight for event in kept], dtype=np.float32),
        order=order[chosen],
        user_ids=user_ids,
        item_ids=item_ids,
        type_names=names,
        ids=[event.id for event in kept] if any(event.id is not None for event in kept) else None,
        clock=clock,
        refused=refused,
    )


def _ordered(times: NDArray[np.int64], order: NDArray[np.int64], shuffle_ties: int | None) -> NDArray[np.int64]:
    """Return the places of the events in the order of (time, ``order``), ties permuted if a seed is given."""
    second = order if shuffle_ties is None else np.random.default_rng(shuffle_ties).permutation(len(order))
    return np.lexsort((second, times))


def _coded(names: Sequence[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Number names in the order of their first occurrence."""
    codes: dict[str, int] = {}
    coded = np.fromiter((codes.setdefault(name, len(codes)) for name in names), dtype=np.int32, count=len(names))
    return coded, list(codes)


def _period(path: Path) -> int:
    found = _PERIOD.fullmatch(path.name)
    return int(found[1]) if found else -1


def _read_periods(directory: Path, files: Sequence[Path], shuffle_ties: int | None, limit: int | None) -> Stream:
    """Read ADER's form: one file per week, a session and an item per line, in order and without times."""
    try:
        frames = [pl.read_csv(read_content(file), separator=" ", has_header=False, schema=_PAIRS) for file in files]
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{directory}: expected a session and an item per line of period_K.txt ({reason})") from None
    lengths = np.array([frame.height for frame in frames])
    rows = pl.concat(frames)
    if rows.null_count().sum_horizontal().item():
        raise InputError(f"{directory}: expected a session and an item per line of period_K.txt, got half a line")
    times = np.repeat(np.array([_period(file) for file in files], dtype=np.int64) * _WEEK_MS, lengths)
    pairs = zip(rows["session"].to_list(), rows["item"].to_list(), times.tolist(), strict=True)
    events = list(starmap(Event, pairs))
    return _stream(directory.name, events, range(len(events)), shuffle_ties, limit, clock=False, refused=0)


_PAIRS = {"session": pl.String, "item": pl.String}
