"""The where expression: what it matches and what it refuses."""

from pathlib import Path

import msgspec
import pytest

import recurra
from recurra.engine.errors import InputError
from recurra.engine.filters import compile_filter

ITEM = {"title": "Toy Story", "categories": ["Animation", "Comedy"], "release_year": 1995, "available": True}


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("'Comedy' in categories", True),
        ("'Drama' in categories", False),
        ("'Drama' not in categories and release_year >= 1990", True),
        ("1990 <= release_year < 1995", False),
        ("title == 'Toy Story'", True),
        ("'Story' in title or price > 3", True),
        ("price > 3", False),
        ("price is_missing", None),
        ("not available", False),
        ("release_year in [1994, 1995]", True),
        ("release_year > -1", True),
        ("release_year > 'x'", False),
    ],
)
def test_matches(expression: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(InputError, match="cannot read the filter"):
            compile_filter(expression)
    else:
        assert compile_filter(expression)(ITEM) is matches


@pytest.mark.parametrize(
    "expression",
    ["", "__import__('os')", "title.upper() == 'X'", "lambda: 1", "a := 1", "x is None", "(" * 5000, "9**9**9 > 1"],
)
def test_refuses_everything_else(expression: str) -> None:
    with pytest.raises(InputError):
        compile_filter(expression)


@pytest.mark.parametrize("value", ["1", "-1", "[1]", "[]", "'x'"])
def test_a_list_has_a_thousand_values_at_most(value: str) -> None:
    compile_filter(f"a in [{','.join([value] * 1_000)}]")
    with pytest.raises(InputError, match="more than 1000 values"):
        compile_filter(f"a in ({','.join([value] * 1_001)})")


# what it came in as, and what the store reads back
SHAPES = {
    "tuples": recurra.Item("m", categories=("a", "b"), attributes={"tags": ("x", ("y", 1)), "box": {"size": (1, 2)}}),
    "lists": recurra.Item("m", categories=["a", "b"], attributes={"tags": ["x", ["y", 1]], "box": {"size": [1, 2]}}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("brackets", ["[]", "()"])
@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("categories == ['a', 'b']", True),
        ("['a', 'b'] == categories", True),
        ("categories != ['a', 'b']", False),
        ("categories == ['b', 'a']", False),
        ("categories in [['a', 'b'], ['c', 'd']]", True),
        ("categories not in [['a', 'b'], ['c', 'd']]", False),
        ("categories < ['a', 'c']", True),
        ("tags == ['x', ['y', 1]]", True),
        ("['y', 1] in tags", True),
        ("['y', 1] not in tags", False),
        ("[item, item] == ['m', 'm']", True),
        ("[categories, item] == [['a', 'b'], 'm']", True),
    ],
)
def test_lists_and_tuples_are_the_same(
    tmp_path: Path, shape: str, brackets: str, expression: str, matches: bool
) -> None:
    where = expression.translate(str.maketrans("[]", brackets))
    with recurra.open(tmp_path) as engine:
        # the first answer is by columns, the next after a change by a test of the item
        for record in (SHAPES[shape], msgspec.structs.replace(SHAPES[shape], title="new")):
            engine.ingest([record, *(recurra.Item(f"n{n}") for n in range(40))])
            assert ("m" in engine.recommend("nobody", 50, where=where).items) is matches
    with recurra.open(tmp_path) as engine:
        assert ("m" in engine.recommend("nobody", 50, where=where).items) is matches
