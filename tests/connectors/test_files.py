"""Files of every format: what is read, in which order, and what is refused."""

import datetime as dt
import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.connectors.dead_letter import FileDeadLetters, read_dead_letters
from recurra.connectors.file_formats import detect_format, seconds_to_ms
from recurra.connectors.files import EventFile, open_segments, read_events
from recurra.engine.config import FieldNames
from recurra.engine.errors import BadEventError, InputError, SourceMismatchError
from recurra.engine.events import Event, Forget

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def make(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.inter", INTER + "1\t2\t3\t881250949\n", Event("1", "2", 881_250_949_000, weight=3.0)),
        ("b.inter", INTER + "1\t2\t3.5\t881250949.123\r\n", Event("1", "2", 881_250_949_123, weight=3.5)),
        ("c.inter", INTER + "1\t2\t\t8.8e8\n", Event("1", "2", 880_000_000_000)),
        ("d.inter", "user_id:token\titem_id:token\tposition:float\n7\t8\t3\n", Event("7", "8", 3_000)),
        ("e.dat", "1::0074638::7::1365029107\n", Event("1", "0074638", 1_365_029_107_000, weight=7.0)),
        (
            "f.csv",
            "userId,movieId,rating,timestamp\n1,31,2.5,1260759144",
            Event("1", "31", 1_260_759_144_000, None, 2.5),
        ),
        ("g.csv", "item,user,time,type,id,x\ni,u,5,play,e,9\n", Event("u", "i", 5, "play", None, "e")),
        ("h.csv", "user,item,time\nu,i,2023-11-14T22:13:20Z\n", Event("u", "i", 1_700_000_000_000)),
        ("i.csv", 'user,item,time\n"a,b","say ""x""",5\n', Event("a,b", 'say "x"', 5)),
        ("j.csv", "\ufeffuser;item;time\nu;i;5\n", Event("u", "i", 5)),
        ("k.tsv", "user\titem\ttime\nu\ti\t5\n", Event("u", "i", 5)),
        ("q.csv", "user, item, timestamp\n ann ,m1 , 1700000000\n", Event("ann", "m1", 1_700_000_000_000)),
        ("r.csv", 'user, item, time\nann, "a, b", 5\n', Event("ann", "a, b", 5)),
        ("s.csv", "user;item;time\nann; m 1 ;5\n", Event("ann", "m 1", 5)),
        ("t.tsv", "user\titem\ttime\nann\t m1 \t5\n", Event("ann", " m1 ", 5)),
        ("u.csv", "user,item,time\nu,i,2023-11-14 22:13:20+00:00\n", Event("u", "i", 1_700_000_000_000)),
        ("v.csv", "user,item,timestamp\nu,i,2023-11-14 22:13:20Z\n", Event("u", "i", 1_700_000_000_000)),
        ("w.dat", "\ufeff1::2::3::4\n", Event("1", "2", 4_000, weight=3.0)),
        ("x.jsonl", '\ufeff{"user":"u","item":"i","time":5}\n', Event("u", "i", 5)),
        ("y.inter", "\ufeff" + INTER + "1\t2\t3\t4\n", Event("1", "2", 4_000, weight=3.0)),
        ("z.unknown", '\ufeff{"user":"u","item":"i","time":5}\n', Event("u", "i", 5)),
        ("l.jsonl", '{"user":"u","item":"i","time":5}\n', Event("u", "i", 5)),
        ("m.unknown", '{"user":"u","item":"i","time":5}\n', Event("u", "i", 5)),
        ("n.unknown", "1::2::3::4\n", Event("1", "2", 4_000, weight=3.0)),
        ("o.unknown", INTER + "1\t2\t3\t4\n", Event("1", "2", 4_000, weight=3.0)),
        ("p.unknown", "user,item,time\nu,i,5\n", Event("u", "i", 5)),
    ],
)
def test_formats(write: Callable[..., Path], name: str, content: str, expected: Event) -> None:
    headed = name.endswith((".inter", "csv", "tsv")) or name[0] in "op"
    assert read_events(write(name, content)) == EventFile([expected], [2 if headed else 1], 0, True)


@pytest.mark.parametrize(
    ("columns", "expected_ms"),
    [
        ({"timestamp": [881_250_949]}, 881_250_949_000),
        ({"timestamp": [881_250_949.123]}, 881_250_949_123),
        ({"time": [5]}, 5),
        ({"time": [5.0]}, 5),
        ({"time": ["2023-11-14T22:13:20Z"]}, 1_700_000_000_000),
        ({"timestamp": [dt.datetime(2023, 11, 14, 22, 13, 20)]}, 1_700_000_000_000),
        ({"timestamp": [dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)]}, 1_700_000_000_000),
    ],
)
def test_parquet(tmp_path: Path, columns: dict[str, list[object]], expected_ms: int) -> None:
    pl.DataFrame({"user_id": [1], "item_id": ["i"], "rating": [4.0], **columns}).write_parquet(tmp_path / "a.parquet")
    found = read_events(tmp_path / "a.parquet")
    assert found.events == [Event("1", "i", expected_ms, weight=4.0)]


def test_events_are_put_in_the_order_of_time_and_place(write: Callable[..., Path]) -> None:
    path = write(
        "a.inter", INTER + "".join(f"u\t{item}\t\t{time}\n" for item, time in ((1, 9), (2, 5), (3, 9), (4, 5)))
    )
    found = read_events(path)
    assert [event.item for event in found.events if isinstance(event, Event)] == ["2", "4", "1", "3"]
    assert found.lines == [3, 5, 2, 4]
    assert not found.sorted_by_time
    assert read_events(path, limit=2).lines == [3, 5]


def test_a_file_with_forget_requests_keeps_its_order(write: Callable[..., Path]) -> None:
    lines = [
        {"user": "a", "item": "i", "time": 9},
        {"user": "a", "forget": True},
        {"user": "a", "item": "j", "time": 1},
    ]
    found = read_events(write("a.jsonl", "\n".join(map(json.dumps, lines))))
    assert found.events == [Event("a", "i", 9), Forget("a"), Event("a", "j", 1)]


def test_malformed_lines_are_counted_and_kept(write: Callable[..., Path], tmp_path: Path) -> None:
    bad = [b"1\t2", b"\t2\t3\t4", b"1\t2\t3\tx", b"1\t2\t3\t-4", b"1\t\xff\t3\t4", b"1\t2\tgood\t4", b"1\t2\t3\t1e13"]
    content = INTER.encode() + b"\n".join([*bad, b"", b"5\t6\t\t7", b"8\t9\t3"])
    letters = FileDeadLetters(tmp_path / "letters.jsonl")
    path = write("a.inter", content)
    found = read_events(path, dead_letters=letters)
    letters.close()
    assert found.events == [Event("5", "6", 7_000)]
    assert found.refused == len(bad) + 1
    kept = read_dead_letters(tmp_path / "letters.jsonl")
    # the last line was cut off
    assert [(letter["position"], letter["payload"]) for letter in kept] == [
        *((number, line) for number, line in enumerate(bad, 2)),
        (len(bad) + 4, b"8\t9\t3"),
    ]
    assert all(letter["reason"] and letter["source"] == f"file:{path}" for letter in kept)
    assert "milliseconds" in str(kept[-2]["reason"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.inter", b"", "the file is empty"),
        ("a.csv", b"1,2,3,4\n5,6,7,8\n", "expected a header with a user"),
        ("a.parquet", b"PAR1 and then nothing", "is it complete"),
        ("a.txt", b"what is this\n", "cannot recognise the format"),
    ],
)
def test_files_that_are_not_of_their_format(write: Callable[..., Path], name: str, content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_events(write(name, content))
    assert "\n" not in str(caught.value)


FAR = 2**62


@pytest.mark.parametrize(
    "times",
    [
        pl.Series("time", [5, FAR, 7], pl.Int64).cast(pl.Datetime("ms")),
        pl.Series("time", [5, FAR, 7], pl.Int64),
        pl.Series("timestamp", [0.005, 1e306, 0.007]),
        pl.Series("timestamp", [0.005, float("nan"), 0.007]),
    ],
)
def test_a_row_with_a_time_beyond_all_dates_leaves_its_neighbours(tmp_path: Path, times: pl.Series) -> None:
    # a column that nobody reads has a date that Python has not
    seen = pl.Series("seen", [FAR] * 3, pl.Int64).cast(pl.Datetime("us"))
    pl.DataFrame([pl.Series("user", ["a", "b", "c"]), pl.Series("item", ["x"] * 3), times, seen]).write_parquet(
        tmp_path / "a.parquet"
    )
    found = read_events(tmp_path / "a.parquet")
    assert [(event.user, event.time_ms) for event in found.events if isinstance(event, Event)] == [("a", 5), ("c", 7)]
    assert found.refused == 1


FAR_DATES = {
    "date and time": pl.Series([FAR] * 2, dtype=pl.Int64).cast(pl.Datetime("us")),
    "before all dates": pl.Series([-FAR] * 2, dtype=pl.Int64).cast(pl.Datetime("ms")),
    "with a time zone": pl.Series([FAR] * 2, dtype=pl.Int64).cast(pl.Datetime("us", "Europe/Berlin")),
    "date": pl.Series([2**30] * 2, dtype=pl.Int32).cast(pl.Date),
    "duration": pl.Series([FAR] * 2, dtype=pl.Int64).cast(pl.Duration("ms")),
    "time of day": pl.Series([dt.time(1, 2)] * 2),
    "list": pl.Series([[FAR]] * 2).cast(pl.List(pl.Datetime("us"))),
    "array": pl.Series([[FAR]] * 2, dtype=pl.Array(pl.Int64, 1)).cast(pl.Array(pl.Datetime("us"), 1)),
    "struct": pl.Series([{"a": [FAR]}] * 2).cast(pl.Struct({"a": pl.List(pl.Datetime("us"))})),
    "binary": pl.Series([b"\xff\x00"] * 2),
    "decimal": pl.Series([Decimal("9" * 38)] * 2, dtype=pl.Decimal(38, 0)),
    "infinite": pl.Series([float("inf")] * 2),
}


# dates that may be times have a test of their own
CELLS = [
    (column, kind)
    for column in ("user", "item", "time", "id", "weight", "type", "seen")
    for kind in FAR_DATES
    if column != "time" or kind not in ("date and time", "before all dates", "with a time zone")
]


@pytest.mark.parametrize(("column", "kind"), CELLS)
def test_a_cell_that_is_of_no_use_is_its_rows_dead_letter(tmp_path: Path, column: str, kind: str) -> None:
    columns: dict[str, Any] = {"user": ["a", "b"], "item": ["x", "y"], "time": [5, 6]}
    frame = pl.DataFrame({**columns, column: FAR_DATES[kind]})
    frame.write_parquet(tmp_path / "a.parquet")
    letters = FileDeadLetters(tmp_path / "letters.jsonl")
    found = read_events(tmp_path / "a.parquet", dead_letters=letters)
    letters.close()
    if column == "seen":
        # nobody reads it
        assert (len(found.events), found.refused) == (2, 0)
        return
    assert (found.events, found.refused) == ([], 2)
    kept = read_dead_letters(tmp_path / "letters.jsonl")
    assert all("expected" in str(letter["reason"]) or "weight" in str(letter["reason"]) for letter in kept)


def test_a_row_without_the_date_that_is_of_no_use_is_read(tmp_path: Path) -> None:
    days = pl.Series("id", [None, 2**30], dtype=pl.Int32).cast(pl.Date)
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": [5, 6]}).with_columns(days)
    frame.write_parquet(tmp_path / "a.parquet")
    letters = FileDeadLetters(tmp_path / "letters.jsonl")
    assert read_events(tmp_path / "a.parquet", dead_letters=letters).events == [Event("a", "x", 5)]
    letters.close()
    [letter] = read_dead_letters(tmp_path / "letters.jsonl")
    assert letter["reason"] == "expected a string or an integer as id, got {'Date': 1073741824}"


@pytest.mark.parametrize(
    ("column", "other"), [("time", "item"), ("timestamp", "item"), ("item", "time"), ("user", "time")]
)
def test_a_date_is_neither_a_time_nor_an_id(tmp_path: Path, column: str, other: str) -> None:
    columns = {"user": ["u"], "item": ["i"], other: [5] if other == "time" else ["i"], column: [dt.date(2023, 11, 14)]}
    pl.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    found = read_events(tmp_path / "a.parquet")
    assert (found.events, found.refused) == ([], 1)


@pytest.mark.parametrize("number", ["1" + "0" * 5_000, "1e300", "9" * 400, "-1e300"])
def test_a_line_with_a_time_beyond_all_dates_leaves_its_neighbours(write: Callable[..., Path], number: str) -> None:
    for column in ("timestamp", "time"):
        lines = f"user,item,{column}\na,x,5\nb,x,{number}\nc,x,7\n"
        found = read_events(write("a.csv", lines))
        assert [event.user for event in found.events] == ["a", "c"]


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user": ["u"] * 1_000, "item": ["i"] * 1_000, "time": range(1_000)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is it complete"):
        read_events(path)


def test_missing_files_and_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file at"):
        read_events(tmp_path / "none.inter")
    with pytest.raises(InputError, match="no file at"):
        read_events(tmp_path / "none")
    with pytest.raises(InputError, match="is a directory"):
        read_events(tmp_path)
    with pytest.raises(InputError, match="expected a format of"):
        read_events(Path(__file__), format_name="xml")


def test_mapped_names(write: Callable[..., Path]) -> None:
    fields = FieldNames(user="who", item="what", time="at")
    assert read_events(write("a.csv", "who,what,at\nu,i,5\n"), fields=fields).events == [Event("u", "i", 5)]


@given(st.integers(0, 10**11), st.integers(0, 999), st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_seconds_become_milliseconds_exactly(seconds: int, thousandths: int, zeros: int) -> None:
    assert seconds_to_ms(f"{seconds}.{thousandths:03d}{'0' * zeros}") == seconds * 1_000 + thousandths
    assert seconds_to_ms(str(seconds)) == seconds * 1_000


@pytest.mark.parametrize("text", ["", "x", "1_0", "nan", "inf", "1e9999", "٣", "1.5.2", "0x10"])
def test_what_is_no_number_of_seconds(text: str) -> None:
    with pytest.raises(BadEventError):
        seconds_to_ms(text)


class Facts(dict[str, dict[str, object]]):
    """What a store would keep about sources."""

    def take(self, path: Path) -> list[tuple[str, list[Event | Forget]]]:
        segments = list(open_segments(path, source_info=self.get))
        self.update({segment.key: segment.info for segment in segments})
        return [(segment.key.rsplit("@", 1)[1], segment.events.events) for segment in segments]


def test_a_file_that_grows_goes_on_as_a_further_source(write: Callable[..., Path]) -> None:
    first, second = "u\ta\t\t9\nu\tb\t\t5\n", "u\tc\t\t7\nu\td\t\t6\n"
    facts = Facts()
    path = write("a.inter", INTER + first)
    assert facts.take(path) == [("0", [Event("u", "b", 5_000), Event("u", "a", 9_000)])]
    path.write_text(INTER + first + second)
    later = facts.take(path)
    # what was taken keeps its order: the newer lines are sorted among themselves only
    assert later[0] == ("0", [Event("u", "b", 5_000), Event("u", "a", 9_000)])
    assert later[1] == (str(len(INTER + first)), [Event("u", "d", 6_000), Event("u", "c", 7_000)])
    assert facts.take(path) == later


HALF_WRITTEN = [
    ("a.csv", "user,item,time\nu,a,1700000000000\n", "u,b,17000", "00000000\n", "u", "b", 1_700_000_000_000),
    ("b.jsonl", '{"user":"u","item":"a","time":5}\n', '{"user":"u","it', 'em":"b","time":6}\n', "u", "b", 6),
    ("c.dat", "1::2::3::4\n", "1::77::3::9", "9\n", "1", "77", 99_000),
    ("d.inter", INTER + "1\t2\t3\t4\n", "1\t7", "7\t3\t9\n", "1", "77", 9_000),
]


@pytest.mark.parametrize(("name", "whole", "half", "rest", "user", "item", "time_ms"), HALF_WRITTEN)
def test_a_half_written_last_line_waits_for_its_end(
    write: Callable[..., Path], name: str, whole: str, half: str, rest: str, user: str, item: str, time_ms: int
) -> None:
    facts = Facts()
    path = write(name, whole + half)
    ((_, first),) = facts.take(path)
    assert len(first) == 1
    path.write_text(whole + half + rest)
    _, (start, events) = facts.take(path)
    assert start == str(len(whole))
    (event,) = events
    assert isinstance(event, Event)
    assert (event.user, event.item, event.time_ms) == (user, item, time_ms)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(("name", "whole"), [(name, whole) for name, whole, *_ in HALF_WRITTEN])
def test_a_file_that_was_empty_is_read_later(write: Callable[..., Path], name: str, whole: str, recorded: bool) -> None:
    facts = Facts()
    path = write(name, "")
    if recorded:
        # stores of earlier releases know the empty part
        facts[f"file:{path.resolve()}@0"] = {"path": str(path), "start": 0, "end": 0, "blake2b": "x"}
    assert facts.take(path) == []
    path.write_text(whole)
    ((start, events),) = facts.take(path)
    assert (start, len(events)) == ("0", 1)
    assert len(facts.take(path)) == 1


@pytest.mark.parametrize("change", ["cut", "edited"])
def test_a_file_that_changed_is_refused(write: Callable[..., Path], change: str) -> None:
    content = "1::2::3::4\n5::6::7::8\n"
    facts = Facts()
    path = write("a.dat", content)
    facts.take(path)
    path.write_text(content[:-5] if change == "cut" else content.replace("6", "9"))
    with pytest.raises(SourceMismatchError, match="not the file that this store has read"):
        facts.take(path)


@pytest.mark.parametrize(
    ("name", "events", "users", "items"),
    [
        ("ml-100k/ml-100k.inter", 100_000, 943, 1_682),
        ("ml-latest-small/ratings.csv", 100_004, 671, 9_066),
        ("movietweetings/ratings.dat", 100_000, 16_554, 10_506),
    ],
)
def test_published_data_sets(
    shared_data: Callable[[str], Path], name: str, events: int, users: int, items: int
) -> None:
    found = read_events(shared_data(name))
    plain = [event for event in found.events if isinstance(event, Event)]
    assert (len(plain), found.refused) == (events, 0)
    assert len({event.user for event in plain}) == users
    assert len({event.item for event in plain}) == items
    assert all(one.time_ms <= two.time_ms for one, two in itertools.pairwise(plain))


def test_detection_by_suffix() -> None:
    assert [detect_format(Path(f"x{suffix}"), b"") for suffix in (".inter", ".dat", ".CSV", ".pq", ".ndjson")] == [
        "inter",
        "dat",
        "csv",
        "parquet",
        "jsonl",
    ]
