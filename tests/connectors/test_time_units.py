"""Units of times, and the values that tables of other people have: what is read, what is warned of."""

import json
import logging
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import recurra
from recurra.connectors.audit import audit
from recurra.connectors.audit_model import decode
from recurra.connectors.dead_letter import FileDeadLetters
from recurra.connectors.files import read_events
from recurra.connectors.local_sources import FileSource
from recurra.engine.config import Config, FieldNames, TrainingConfig
from recurra.engine.errors import BadEventError, ConfigError
from recurra.engine.events import Decoder, Event
from recurra.simulations.datasets import load

TIME_MS = 1_260_759_144_000
MOVIELENS = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n"
NAMES = {"user": "userId", "item": "movieId", "time": "timestamp"}


@pytest.mark.parametrize(
    ("unit", "value", "time_ms"),
    [
        ("s", 1_260_759_144, TIME_MS),
        ("s", 1_260_759_144.25, TIME_MS + 250),
        ("ms", TIME_MS, TIME_MS),
        ("us", TIME_MS * 1_000 + 999, TIME_MS),
        ("ns", TIME_MS * 1_000_000 + 999_999, TIME_MS),
        ("us", "2009-12-14T02:52:24Z", TIME_MS),
    ],
)
def test_messages_in_every_unit(unit: str, value: object, time_ms: int) -> None:
    payload = json.dumps({"user": "u", "item": "i", "time": value}).encode()
    names = FieldNames(time_unit=unit)  # type: ignore[arg-type]
    event = Decoder(names).event(payload)
    assert isinstance(event, Event)
    assert event.time_ms == time_ms
    # the auditor's own reading is the same
    fact = decode(payload, msgspec.structs.asdict(names))
    assert fact is not None
    assert fact.time_ms == time_ms


@pytest.mark.parametrize(
    ("unit", "value"), [("s", -1), ("s", 10**12), ("us", 1.5), ("ms", 1.5), ("ns", True), ("s", 1e300)]
)
def test_what_is_no_time_in_its_unit(unit: str, value: object) -> None:
    payload = json.dumps({"user": "u", "item": "i", "time": value}).encode()
    names = FieldNames(time_unit=unit)  # type: ignore[arg-type]
    with pytest.raises(BadEventError, match="field 'time' must be"):
        Decoder(names).event(payload)
    assert decode(payload, msgspec.structs.asdict(names)) is None


def test_an_unknown_unit() -> None:
    with pytest.raises(ConfigError, match=r"events\.time_unit must be s, ms, us or ns, got 'minutes'"):
        FieldNames(time_unit="minutes")  # type: ignore[arg-type]


@pytest.mark.parametrize(("factor", "unit"), [(1_000, "us"), (1_000_000, "ns")])
def test_a_finer_unit_is_named_where_it_is_refused(factor: int, unit: str) -> None:
    payload = json.dumps({"user": "u", "item": "i", "time": TIME_MS * factor})
    with pytest.raises(BadEventError, match=f'events.time_unit = "{unit}" says so'):
        Decoder().event(payload)


def test_seconds_taken_for_milliseconds_are_counted_and_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(MOVIELENS)
    settings = Config(training=TrainingConfig(mode="off"), events=FieldNames(**NAMES))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING), recurra.open(tmp_path / "data", settings) as engine:
        FileSource(engine, path, settings, FileDeadLetters(tmp_path / "letters")).run(threading.Event())
        assert engine.registry.get_sample_value("recurra_suspect_times_total") == 2
    assert caplog.text.count('events.time_unit = "s"') == 1
    # what is small, and what is of our time, is not suspicious
    caplog.clear()
    with caplog.at_level(logging.WARNING), recurra.open(tmp_path / "other", settings) as engine:
        engine.ingest([recurra.Event("a", "x", 1_000), recurra.Event("a", "y", TIME_MS)])
        assert engine.registry.get_sample_value("recurra_suspect_times_total") == 0
    assert caplog.text == ""


def test_the_unit_applies_to_files_and_to_their_audit(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(MOVIELENS)
    settings = Config(training=TrainingConfig(mode="off"), events=FieldNames(**NAMES, time_unit="s"))
    with recurra.open(tmp_path / "data", settings) as engine:
        FileSource(engine, path, settings, FileDeadLetters(tmp_path / "letters")).run(threading.Event())
        assert [entry.time_ms for entry in engine.history("1")] == [TIME_MS, TIME_MS + 35_000]
        assert engine.registry.get_sample_value("recurra_suspect_times_total") == 0
    assert audit(tmp_path / "data", str(path), settings).ok


def table(tmp_path: Path, kind: str, columns: dict[str, list[Any]]) -> Path:
    path = tmp_path / f"events.{kind}"
    frame = pl.DataFrame(columns)
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("unit", "factor"), [("us", 1_000), ("ns", 1_000_000)])
def test_tables_in_finer_units(tmp_path: Path, kind: str, unit: str, factor: int) -> None:
    path = table(tmp_path, kind, {"user": ["a"], "item": ["x"], "at": [TIME_MS * factor + 1]})
    found = read_events(path, fields=FieldNames(time="at", time_unit=unit)).events  # type: ignore[arg-type]
    assert found == [Event("a", "x", TIME_MS)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ratings_that_are_decimals_or_missing(tmp_path: Path, kind: str) -> None:
    columns: dict[str, list[Any]] = {"user": ["a", "b"], "item": ["x", "y"], "time": [TIME_MS, TIME_MS + 1]}
    decimal = table(tmp_path, kind, {**columns, "rating": [Decimal("3.5"), Decimal("4.0")]})
    assert [event.weight for event in read_events(decimal).events if isinstance(event, Event)] == [3.5, 4.0]
    missing = table(tmp_path, kind, {**columns, "rating": [float("nan"), 4.0]})
    found = read_events(missing)
    assert found.refused == 0
    assert [event.weight for event in found.events if isinstance(event, Event)] == [None, 4.0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_position_is_an_order_and_no_time(tmp_path: Path, kind: str) -> None:
    columns: dict[str, list[Any]] = {"user": ["a", "b"], "item": ["x", "y"], "position": [2, 1]}
    stream = load(table(tmp_path, kind, columns))
    assert not stream.clock
    assert [stream.user_ids[code] for code in stream.users] == ["b", "a"]
    assert load(table(tmp_path, kind, {**columns, "timestamp": [1, 2]})).clock


def test_refused_lines_and_configured_names_in_simulations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "visits.csv"
    path.write_text("visitor,sku,when\na,x,1260759144\nb,,1260759145\nc,z,no time\n")
    fields = FieldNames(user="visitor", item="sku", time="when", time_unit="s")
    with caplog.at_level(logging.WARNING):
        stream = load(path, fields=fields)
    assert (len(stream), stream.refused) == (1, 2)
    assert "2 lines are no events and were left out; the first is line 3: " in caplog.text
