"""Files that no format can read: compressed, not UTF-8, or with a column named twice; said at once, whoever reads."""

import bz2
import gzip
import io
import lzma
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recurra
from recurra.connectors.catalogue import read_items
from recurra.connectors.dead_letter import FileDeadLetters
from recurra.connectors.file_content import read_content
from recurra.connectors.files import open_segments, read_events
from recurra.connectors.local_sources import LineSource
from recurra.engine.config import Config, TrainingConfig
from recurra.engine.errors import InputError
from recurra.simulations.datasets import load, load_catalogue

EVENTS = "user,item,time\n" + "".join(f"u{n},i{n % 7},{1_700_000_000_000 + n}\n" for n in range(50))
ITEMS = "item,title,genres\n" + "".join(f"i{n},Title {n},Drama|Crime\n" for n in range(7))
LINES = "".join(f'{{"user": "u{n}", "item": "i", "time": {n}}}\n' for n in range(50))


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("plays.csv", data)
    return buffer.getvalue()


def again(encoding: str) -> Callable[[bytes], bytes]:
    return lambda data: data.decode().encode(encoding)


UNREADABLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "gzip": (gzip.compress, "looks like a gzip file; unpack it first .gunzip"),
    "bzip2": (bz2.compress, "looks like a bzip2 file; unpack it first .bunzip2"),
    "xz": (lzma.compress, "looks like an xz file; unpack it first .unxz"),
    "zip": (zipped, "looks like a zip file; unpack it first .unzip"),
    "zstd": (lambda data: b"\x28\xb5\x2f\xfd" + data, "looks like a Zstandard file; unpack it first .unzstd"),
    "UTF-16 with a mark": (again("utf-16"), "looks like UTF-16 text; write it as UTF-8"),
    "UTF-16 LE": (again("utf-16-le"), "looks like UTF-16LE text; write it as UTF-8"),
    "UTF-16 BE": (again("utf-16-be"), "looks like UTF-16BE text; write it as UTF-8"),
    "UTF-32 with a mark": (again("utf-32"), "looks like UTF-32 text; write it as UTF-8"),
    "UTF-32 LE": (again("utf-32-le"), "looks like UTF-32LE text; write it as UTF-8"),
    "UTF-32 BE": (again("utf-32-be"), "looks like UTF-32BE text; write it as UTF-8"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["plays.csv", "plays.jsonl", "plays.inter", "plays.dat", "plays.csv.gz", "plays"])
def test_events_in_another_form(tmp_path: Path, kind: str, name: str) -> None:
    change, words = UNREADABLE[kind]
    path = tmp_path / name
    path.write_bytes(change((LINES if "jsonl" in name else EVENTS).encode()))
    letters = FileDeadLetters(tmp_path / "letters")
    with pytest.raises(InputError, match=words):
        list(open_segments(path, source_info=lambda _: None, dead_letters=letters))
    letters.close()
    assert not (tmp_path / "letters").exists() or not (tmp_path / "letters").read_bytes()
    with pytest.raises(InputError, match=words):
        load(path)


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", ["items.csv", "items.jsonl", "movies.dat", "ml.item"])
def test_a_catalogue_in_another_form(tmp_path: Path, kind: str, name: str) -> None:
    change, words = UNREADABLE[kind]
    (tmp_path / name).write_bytes(change(ITEMS.encode()))
    for read in (read_items, lambda path: load_catalogue(None, path)):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_weeks_of_sessions_in_another_form(tmp_path: Path, kind: str) -> None:
    change, words = UNREADABLE[kind]
    (tmp_path / "period_0.txt").write_bytes(change(b"s1 i1\ns1 i2\n" * 20))
    with pytest.raises(InputError, match=words):
        load(tmp_path)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_pipe_with_another_form(tmp_path: Path, kind: str) -> None:
    change, words = UNREADABLE[kind]
    reading, writing = os.pipe()
    os.write(writing, change(LINES.encode()))
    os.close(writing)
    config = Config(training=TrainingConfig(mode="off"))
    with recurra.open(tmp_path / "data", config) as engine:
        source = LineSource(engine, reading, config, FileDeadLetters(tmp_path / "letters"))
        with pytest.raises(InputError, match=f"standard input {words}"):
            source.run(threading.Event())
    os.close(reading)


def test_a_pipe_of_which_every_line_is_refused_is_a_problem(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"no event\n" * 7)
    os.close(writing)
    config = Config(training=TrainingConfig(mode="off"))
    with recurra.open(tmp_path / "data", config) as engine:
        source = LineSource(engine, reading, config, FileDeadLetters(tmp_path / "letters"))
        source.run(threading.Event())
        health = source.health()
        assert (health.events, health.refused, health.connected) == (7, 7, False)
        assert "all 7 lines of standard input were refused" in str(health.problem)
    os.close(reading)


def test_parquet_under_another_name(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["u"], "item": ["i"], "time": [5]}).write_parquet(tmp_path / "a.csv")
    with pytest.raises(InputError, match="looks like a parquet file, not like csv"):
        read_events(tmp_path / "a.csv")
    with pytest.raises(InputError, match="looks like a parquet file"):
        read_items(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "content",
    ["", "\n", "B", "BZh9,i,5\n", "PK,i,5\n", "u\0,i,5\n", "\0\0\0\0\0\0\0\0\n", "\0u\0,i,5\n", "é,ü,5\n"],
)
def test_what_only_resembles_another_form_is_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text("user,item,time\n" + content)
    assert read_events(tmp_path / "a.csv").refused <= 1
    (tmp_path / "a.jsonl").write_text(content)
    assert read_events(tmp_path / "a.jsonl").events == []


def test_a_byte_order_mark_of_utf_8_is_no_content(tmp_path: Path) -> None:
    files = {"a.csv": EVENTS, "items.csv": ITEMS, "period_0.txt": "s1 i1\n"}
    for name, content in files.items():
        (tmp_path / name).write_text("\ufeff" + content)
    assert read_events(tmp_path / "a.csv").refused == 0
    assert load(tmp_path / "a.csv").user_ids[0] == "u0"
    assert [item.item for item in read_items(tmp_path / "items.csv").items][:2] == ["i0", "i1"]
    assert load(tmp_path).user_ids == ["s1"]


def columns_twice(names: list[str], cells: str) -> list[tuple[str, str]]:
    return [
        ("a.csv", f"{','.join(names)}\n{cells}\n"),
        ("b.csv", f"{';'.join(names)}\n{cells.replace(',', ';')}\n"),
        ("c.inter", "{}\n{}\n".format("\t".join(f"{name}:token" for name in names), cells.replace(",", "\t"))),
    ]


@pytest.mark.parametrize(
    ("names", "cells", "twice"),
    [
        (["user", "item", "time", "user"], "u,i,5,v", "user"),
        (["user", "item", "time", "Item"], "u,i,5,j", "item"),
        (["user", "item", "time", "weight", "weight"], "u,i,5,1,2", "weight"),
        (["user", "item", "time", "note", "note"], "u,i,5,x,y", "note"),
    ],
)
def test_a_header_with_a_column_twice(tmp_path: Path, names: list[str], cells: str, twice: str) -> None:
    for file, content in columns_twice(names, cells):
        (tmp_path / file).write_text(content)
        for read in (read_events, load):
            with pytest.raises(InputError, match=f"the header names the column '{twice}(:token)?' twice"):
                read(tmp_path / file)


def test_columns_that_are_not_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,user_id,item,time,,,Note,note,geo:x,geo:y\nu,v,i,5,1,2,3,4,5,6\n")
    assert read_events(tmp_path / "a.csv").events == [recurra.Event("u", "i", 5)]


def test_parquet_with_a_column_twice(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"user": ["u"], "item": ["i"], "time": [5], "usex": ["v"]}
    pl.DataFrame(columns).write_parquet(tmp_path / "a.parquet", compression="uncompressed")
    # no writer at hand would do it
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(raw.replace(b"usex", b"user"))
    pl.DataFrame(columns).rename({"usex": "User"}).write_parquet(tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(InputError, match=r"names.* column .*'user'.* twice|twice .*'user'"):
            read_events(tmp_path / name)


@pytest.mark.parametrize(
    ("header", "twice"),
    [
        ("item,title,item", "item"),
        ("item,title,Title", "title"),
        ("item,year,year", "year"),
        ("item:token\tyear:token\tyear:float", "year"),
    ],
)
def test_a_catalogue_with_a_column_twice(tmp_path: Path, header: str, twice: str) -> None:
    (tmp_path / "items.csv").write_text(f"{header}\na,b,c\n")
    with pytest.raises(InputError, match=f"the header names the column '{twice}' twice"):
        read_items(tmp_path / "items.csv")


@pytest.mark.parametrize("name", ["plays.csv", "plays.jsonl", "plays.dat"])
def test_lines_that_end_in_cr_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"user,item,time\rann,m1,1700000000000\r")
    with pytest.raises(InputError, match="line ends of one CR"):
        read_events(path)
    # half of a line end that is being written
    path.write_bytes(b"user,item,time\r")
    assert read_content(path) == b"user,item,time\r"
