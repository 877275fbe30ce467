"""Loaders, on small files of every shape and on the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recurra.engine.errors import InputError
from recurra.engine.events import Event, Item
from recurra.simulations.datasets import Stream, load, load_catalogue

_INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _pairs(stream: Stream) -> list[tuple[str, str]]:
    return [(event.user, event.item) for event in stream.events(0, len(stream))]


def test_events_are_sorted_by_time_and_keep_the_file_order_inside_ties(tmp_path: Path) -> None:
    stream = load(_write(tmp_path / "a.inter", _INTER + "u\tx\t1\t20\nv\ty\t2\t10\nu\tz\t3\t20\nw\tx\t4\t10\n"))
    assert _pairs(stream) == [("v", "y"), ("w", "x"), ("u", "x"), ("u", "z")]
    assert stream.time_ms.tolist() == [10_000, 10_000, 20_000, 20_000]
    assert np.diff(stream.order[:2]) > 0
    # codes are numbered by first occurrence
    assert stream.items.tolist() == [0, 1, 1, 2]
    assert stream.users.tolist() == [0, 1, 2, 2]
    assert stream.event(0) == Event("v", "y", 10_000, weight=2.0)


def test_ties_are_shuffled_by_seed_and_nothing_else_moves(tmp_path: Path) -> None:
    lines = "".join(f"u{line}\ti{line}\t1\t{line // 50}\n" for line in range(200))
    path = _write(tmp_path / "a.inter", _INTER + lines)
    plain, first, again, other = (load(path, shuffle_ties=seed) for seed in (None, 1, 1, 2))
    assert _pairs(first) == _pairs(again)
    assert _pairs(first) != _pairs(plain)
    assert _pairs(first) != _pairs(other)
    for stream in (first, other):
        assert stream.time_ms.tolist() == plain.time_ms.tolist()
        for start in range(0, 200, 50):
            assert sorted(_pairs(stream)[start : start + 50]) == sorted(_pairs(plain)[start : start + 50])


def test_a_limit_keeps_the_first_events_in_time(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.inter", _INTER + "u\tx\t1\t30\nv\ty\t2\t10\nw\tz\t3\t20\n")
    stream = load(path, limit=2)
    assert _pairs(stream) == [("v", "y"), ("w", "z")]
    assert stream.item_ids == ["y", "z"]
    with pytest.raises(InputError, match="at least 1"):
        load(path, limit=0)


def test_types_and_ids_are_carried(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.jsonl",
        '{"user": "u", "item": "x", "time": 5, "type": "play", "id": "e"}\n'
        '{"user": "u", "item": "y", "time": 6}\n{"nonsense": 1}\n'
        '{"user": "u", "item": "x", "time": 7, "type": "buy"}\n',
    )
    stream = load(path)
    assert stream.events(0, 3) == [
        Event("u", "x", 5, "play", id="e"),
        Event("u", "y", 6),
        Event("u", "x", 7, "buy"),
    ]
    assert stream.refused == 1


def test_a_directory_stands_for_the_one_file_of_events_in_it(tmp_path: Path) -> None:
    _write(tmp_path / "movies.csv", "movieId,title,genres\n1,One,Drama\n")
    _write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n7,1,4.0,100\n")
    stream = load(tmp_path)
    assert stream.name == tmp_path.name
    assert _pairs(stream) == [("7", "1")]
    with pytest.raises(InputError, match="no file of events"):
        load(_directory(tmp_path / "empty"))
    two = _directory(tmp_path / "two")
    _write(two / "a.csv", "x")
    _write(two / "b.csv", "x")
    with pytest.raises(InputError, match="give one"):
        load(two)


@pytest.mark.parametrize(
    ("events", "others", "taken"),
    [
        ("a.inter", ["a.item", "b.item", "items.jsonl"], "a.item"),
        ("a.inter", ["b.item", "movies.csv", "items.jsonl"], "items.jsonl"),
        ("ratings.csv", ["movies.csv", "movies.dat", "items.jsonl"], "movies.csv"),
        ("ratings.dat", ["movies.csv", "movies.dat"], "movies.dat"),
        ("ratings.dat", ["movies.csv"], "movies.csv"),
        ("plays.csv", ["plays.item", "movies.dat"], None),
        ("plays.csv", ["items.jsonl"], "items.jsonl"),
        ("plays.parquet", ["items.jsonl"], "items.jsonl"),
        ("plays.jsonl", ["items.jsonl"], "items.jsonl"),
        # the events themselves
        ("items.jsonl", [], None),
        ("period_0.txt", ["items.jsonl"], "items.jsonl"),
    ],
)
def test_the_catalogue_is_the_file_beside_the_events(
    tmp_path: Path, events: str, others: list[str], taken: str | None
) -> None:
    for name in (events, *others):
        _write(tmp_path / name, '{"item": "x", "title": "of ' + name + '"}\n')
    for path in (tmp_path / events, tmp_path):
        found = load_catalogue(path)
        assert (None if found is None else found.name) == taken
        assert found is None or found.items == [Item("x", f"of {taken}")]
    named = load_catalogue(tmp_path / events, tmp_path / events)
    assert named is not None
    assert named.name == events
    assert load_catalogue(None) is None


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def test_periods_have_an_order_and_no_clock(tmp_path: Path) -> None:
    for period, lines in ((10, "5 1\n5 2\n"), (2, "3 9\n3 8\n4 9\n")):
        _write(tmp_path / f"period_{period}.txt", lines)
    stream = load(tmp_path)
    assert _pairs(stream) == [("3", "9"), ("3", "8"), ("4", "9"), ("5", "1"), ("5", "2")]
    assert not stream.clock
    _write(tmp_path / "period_11.txt", "5 1\n6\n")
    with pytest.raises(InputError, match="a session and an item"):
        load(tmp_path)


def test_a_file_without_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load(_write(tmp_path / "a.jsonl", "nonsense\n"))
    with pytest.raises(InputError):
        load(tmp_path / "missing.inter")


@pytest.mark.parametrize(
    ("name", "events", "users", "items", "clock"),
    [
        ("ml-100k", 100_000, 943, 1_682, True),
        ("ml-latest-small", 100_004, 671, 9_066, True),
        ("movietweetings", 100_000, 16_554, 10_506, True),
        ("amazon-beauty", 198_502, 22_363, 12_101, True),
        ("yelp-2019", 316_354, 30_431, 20_033, True),
        pytest.param("ml-1m-order", 999_611, 6_040, 3_416, False, marks=pytest.mark.slow),
        pytest.param("ader-diginetica", 993_483, 204_789, 43_136, False, marks=pytest.mark.slow),
    ],
)
def test_a_real_data_set_has_its_published_size(
    name: str, events: int, users: int, items: int, clock: bool, shared_data: Callable[[str], Path]
) -> None:
    stream = load(shared_data(name))
    assert (stream.name, len(stream), len(stream.user_ids), len(stream.item_ids)) == (name, events, users, items)
    assert stream.clock == clock
    assert bool(np.all(np.diff(stream.time_ms) >= 0))
    assert stream.refused == 0
