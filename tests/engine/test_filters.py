"""The where expression: what it matches and what it refuses."""

import pytest

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
