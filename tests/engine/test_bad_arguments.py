"""Arguments built in Python that are not what they should be: a sentence, nothing applied, a store that opens again."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import recurra
from recurra import Event, Forget, Item
from recurra.engine.errors import BadEventError, ConfigError, InputError
from recurra.engine.events import Decoder

DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]

BAD_ITEMS: list[tuple[Any, str]] = [
    (Item(101), "'item' must be a string, got int"),  # type: ignore[arg-type]  # what a caller may do
    (Item(""), "'item' is empty"),
    (Item("x" * 600), "'item' has 600 bytes"),
    (Item("m", math.nan), "'title' must be a string"),  # type: ignore[arg-type]
    (Item("m", "\ud800"), "not valid Unicode"),
    (Item("m", categories="Drama"), "'categories' must be a tuple of strings"),  # type: ignore[arg-type]
    (Item("m", categories=(1, 2)), "'categories' must be a tuple of strings"),  # type: ignore[arg-type]
    (Item("m", categories=None), "'categories' must be a tuple of strings"),  # type: ignore[arg-type]
    (Item("m", available="false"), "'available' must be True or False"),  # type: ignore[arg-type]
    (Item("m", attributes=None), "'attributes' must be a dict"),  # type: ignore[arg-type]
    (Item("m", attributes={"size": 2**70}), "'size' is an integer beyond 64 bits"),
    (Item("m", attributes={"size": -(2**64)}), "'size' is an integer beyond 64 bits"),
    (Item("m", attributes={"price": math.nan}), "'price' must be finite"),
    (Item("m", attributes={"price": {1, 2}}), "'price' must be text, a number"),
    (Item("m", attributes={"tags": ["a", b"b"]}), "'tags' must be text, a number"),
    (Item("m", attributes={1: 2}), "a name that is no string"),  # type: ignore[dict-item]
    (Item("m", attributes={"deep": DEEP}), "nested deeper than"),
    (Forget(42), "'user' must be a string, got int"),  # type: ignore[arg-type]
    (Event("u", "i", 1, type=5), "'type' must be a string, got int"),  # type: ignore[arg-type]
    (Event(5, "i", 1), "'user' must be a string, got int"),  # type: ignore[arg-type]
    ({"user": "u"}, "expected Event, Forget or Item, got dict"),
]


@pytest.mark.parametrize(("value", "words"), BAD_ITEMS, ids=[words for _, words in BAD_ITEMS])
def test_it_is_refused_and_the_store_opens_again(tmp_path: Path, value: Any, words: str) -> None:
    with recurra.open(tmp_path) as engine:
        engine.ingest([Event("u", "good", 1), Item("good", "A title", ("Drama",), True, {"price": 3.5, "tags": ["a"]})])
        before = engine.digest()
        with pytest.raises(InputError, match=words):
            engine.ingest([Event("u", "other", 2), value])
        assert engine.digest() == before
    with recurra.open(tmp_path) as engine:
        assert (engine.digest(), engine.health().items) == (before, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.recommend(42),
        lambda engine: engine.recommend(""),
        lambda engine: engine.recommend("42", at="2023-11-14T22:13:20Z"),
        lambda engine: engine.recommend("42", at=1.5),
        lambda engine: engine.recommend("42", at=-1),
        lambda engine: engine.recommend("42", k=True),
        lambda engine: engine.similar(1),
        lambda engine: engine.similar("i", k="3"),
        lambda engine: engine.history(42),
        lambda engine: engine.forget(42),
        lambda engine: engine.forget(None),
        lambda engine: engine.similar("no such item", where=5),
        lambda engine: engine.rollback("1"),
        lambda engine: engine.rollback(True),
        lambda engine: engine.rollback(10**5_000),
        lambda engine: engine.ingest(Event("42", "j", 2)),
    ],
)
def test_queries_refuse_what_is_not_of_their_types(tmp_path: Path, call: Callable[[Any], object]) -> None:
    with recurra.open(tmp_path) as engine:
        engine.ingest([Event("42", "i", 1)])
        with pytest.raises(InputError):
            call(engine)
        assert [entry.item for entry in engine.history("42")] == ["i"]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
def test_a_catalogue_record_on_the_wire_with_a_number_that_cannot_be_kept(number: int) -> None:
    with pytest.raises(BadEventError, match="beyond 64 bits"):
        Decoder().item(f'{{"item": "m", "size": {number}}}'.encode())


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_that_python_does_not_write(tmp_path: Path, sign: int) -> None:
    number = sign * 10**5_000
    with recurra.open(tmp_path) as engine:
        for event in (Event("u", "i", number), Event("u", "i", 1, weight=number)):
            with pytest.raises(InputError, match="an integer of 16610 bits"):
                engine.ingest([event])
        with pytest.raises(InputError, match="an integer of 16610 bits"):
            engine.recommend("u", k=number)
        with pytest.raises(InputError, match="an integer of 16610 bits"):
            engine.recommend("u", at=number)


@pytest.mark.parametrize("path", ["", None, 1, b"x"])
def test_a_directory_must_be_a_path(path: Any) -> None:
    with pytest.raises(ConfigError, match="must be a path"):
        recurra.open(path)


@pytest.mark.parametrize("config", [{}, 1, "recurra.toml"])
def test_a_configuration_must_be_one(tmp_path: Path, config: Any) -> None:
    with pytest.raises(ConfigError, match="must be a Config"):
        recurra.open(tmp_path / "data", config)
    assert not (tmp_path / "data").exists()


def test_tables_that_memory_has_no_room_for_are_refused(tmp_path: Path) -> None:
    # less than the bounds of the settings refuse, and more than the process may have
    text = """
import resource, sys, recurra
from recurra.engine.config import StoreConfig
resource.setrlimit(resource.RLIMIT_AS, (1 << 36, 1 << 36))
recurra.open(sys.argv[1], recurra.Config(store=StoreConfig(hot_histories=100_000_000)))
"""
    done = subprocess.run([sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "ConfigError: no room in memory for what [store]" in done.stderr
