"""Catalogue files in every published form."""

from collections.abc import Callable
from pathlib import Path

import pytest

from recurra.connectors.catalogue import read_items
from recurra.connectors.dead_letter import FileDeadLetters, read_dead_letters
from recurra.engine.config import FieldNames
from recurra.engine.errors import InputError
from recurra.engine.events import Item

HEADER = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "ml.item",
            HEADER + "1\tToy Story\t1995\tAnimation Children's\n",
            Item("1", "Toy Story", ("Animation", "Children's"), True, {"release_year": "1995"}),
        ),
        (
            "movies.dat",
            "0002844#Fantômas: #1 (1913)#Crime|Drama\n",
            Item("0002844", "Fantômas: #1 (1913)", ("Crime", "Drama")),
        ),
        (
            "movies.dat",
            "1::Toy Story (1995)::Animation|Comedy\r\n",
            Item("1", "Toy Story (1995)", ("Animation", "Comedy")),
        ),
        (
            "movies.csv",
            'movieId,title,genres\n1,"Crime, The (1995)",Action|Crime\n',
            Item("1", "Crime, The (1995)", ("Action", "Crime")),
        ),
        ("movies.csv", "movieId,title,genres\n1,Untitled,(no genres listed)\n", Item("1", "Untitled")),
        (
            "items.jsonl",
            '{"item":"i","title":"T","available":false,"year":1}\n',
            Item("i", "T", (), False, {"year": 1}),
        ),
    ],
)
def test_forms(tmp_path: Path, name: str, content: str, expected: Item) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert read_items(path).items == [expected]


def test_lines_that_are_no_records_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_bytes(b"movieId,title,genres\n1,a,b\n2,a\n,a,b\n3,\xff,b\n4,x,\n")
    letters = FileDeadLetters(tmp_path / "letters")
    found = read_items(path, dead_letters=letters)
    letters.close()
    assert [item.item for item in found.items] == ["1", "4"]
    assert found.refused == 3
    assert [letter["position"] for letter in read_dead_letters(tmp_path / "letters")] == [3, 4, 5]


def test_the_id_may_have_a_name_of_its_own_and_headers_quotes(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text('"sku","item","title"\nA7,1,"Tea, black"\n')
    assert read_items(path, fields=FieldNames(item="sku")).items == [Item("A7", "Tea, black", (), True, {"item": "1"})]


def test_what_no_store_could_keep_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "movies.csv"
    path.write_text(f"movieId,title,genres\n{'x' * 600},a,b\n1,a,b\n1,newer,b\n")
    found = read_items(path)
    assert found.refused == 1
    assert "1 lines are no records and were left out; the first is line 2: field 'item' has 600 bytes" in caplog.text
    # of two records of an item the last one counts
    assert found.by_item() == {"1": Item("1", "newer", ("b",))}
    assert found.name == "movies.csv"


def test_what_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the catalogue"):
        read_items(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="header with an item column"):
        read_items(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "count"),
    [("ml-100k/ml-100k.item", 1_682), ("movietweetings/movies.dat", 10_506), ("ml-latest-small/movies.csv", 9_125)],
)
def test_published_catalogues(shared_data: Callable[[str], Path], name: str, count: int) -> None:
    found = read_items(shared_data(name))
    assert (len(found.items), found.refused) == (count, 0)
    assert sum(item.title is not None for item in found.items) > 0.99 * count
