"""Catalogues of ``recurra replay`` and ``recurra evaluate``: by name, beside the events, or none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run

# events of five people with these items; the catalogues have the first four of them, one more, and a line that is none
_ITEMS = 6
_EVENTS = [(f"u{place % 5}", f"m{place * 7 % 11 % _ITEMS}", 1_700_000_000 + 60 * place) for place in range(60)]
_GENRES = ("Drama", "Comedy")
_RECORDS = [(f"m{number}", f"Title {number}", _GENRES[number % 2]) for number in (0, 1, 2, 3, 99)]


def _inter(folder: Path) -> tuple[Path, Path]:
    rows = ["user_id:token\titem_id:token\ttimestamp:float", *(f"{u}\t{i}\t{time}" for u, i, time in _EVENTS)]
    records = ["item_id:token\tmovie_title:token_seq\tclass:token_seq", *("\t".join(record) for record in _RECORDS)]
    return _written(folder, "small.inter", rows), _written(folder, "small.item", [*records, "m4\thalf a record"])


def _csv(folder: Path) -> tuple[Path, Path]:
    rows = ["userId,movieId,rating,timestamp", *(f"{u},{i},4.0,{time}" for u, i, time in _EVENTS)]
    records = ["movieId,title,genres", *(",".join(record) for record in _RECORDS)]
    return _written(folder, "ratings.csv", rows), _written(folder, "movies.csv", [*records, "m4,half a record"])


def _dat(folder: Path) -> tuple[Path, Path]:
    rows = [f"{u}::{i}::4::{time}" for u, i, time in _EVENTS]
    records = ["::".join(record) for record in _RECORDS]
    return _written(folder, "ratings.dat", rows), _written(folder, "movies.dat", [*records, "m4::half a record"])


def _lines(folder: Path) -> tuple[Path, Path]:
    rows = [json.dumps({"user": u, "item": i, "time": 1_000 * time}) for u, i, time in _EVENTS]
    records = [json.dumps({"item": i, "title": title, "categories": [genre]}) for i, title, genre in _RECORDS]
    return _written(folder, "plays.jsonl", rows), _written(folder, "items.jsonl", [*records, '{"title": "m4"}'])


def _written(folder: Path, name: str, lines: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("form", [_inter, _csv, _dat, _lines])
@pytest.mark.parametrize("way", ["beside", "in the directory", "by name"])
def test_every_form_is_read_and_counted(
    form: Callable[[Path], tuple[Path, Path]], way: str, tmp_path: Path, run: Run
) -> None:
    events, catalogue = form(tmp_path / "set")
    named: list[str | Path] = []
    if way == "by name":
        moved = tmp_path / f"records{catalogue.suffix}"
        catalogue.rename(moved)
        catalogue, named = moved, ["--catalogue", moved]
    store = tmp_path / "store"
    path = events.parent if way == "in the directory" else events
    done = run("replay", path, *named, "--baselines", "none", "--data", store, "--json", tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["settings"]["catalogue"] == catalogue.name
    assert (result["records_used"], result["items_without_record"], result["records_refused"]) == (4, 2, 1)
    assert f"catalogue {catalogue.name}: 4 records used, 2 items without one, 1 lines refused" in done.out
    assert f"{catalogue}: 1 lines are no records and were left out; the first is line" in done.err
    # afterwards the engine has titles and filters, of the items that occurred and no others
    answer = run("similar", "m1", "-k", "9", "--data", store, "--json", "-").json
    titles = dict(zip(answer["items"], answer["titles"], strict=True))
    assert titles["m3"] == "Title 3"
    assert titles["m4"] is None
    assert "m99" not in titles
    only = run("similar", "m1", "-k", "9", "--where", "'Drama' in categories", "--data", store, "--json", "-").json
    assert sorted(only["items"]) == ["m0", "m2"]


def _figures(run: Run, *arguments: str | Path) -> dict[str, Any]:
    result: dict[str, Any] = run("replay", *arguments, "--seed", "3", "--json", "-").json
    for cost in ("seconds", "events_per_s", "train_s", "train_cpu_s", "peak_rss_mb"):
        del result[cost]
    return result


def test_none_is_as_if_there_were_no_file(tmp_path: Path, run: Run) -> None:
    events, catalogue = _csv(tmp_path / "set")
    options = (events, "--baselines", "markov")
    none = _figures(run, *options, "--catalogue", "none", "--data", tmp_path / "none")
    beside = _figures(run, *options)
    kept = catalogue.rename(tmp_path / "kept.csv")
    missing = _figures(run, *options, "--data", tmp_path / "missing")
    assert none["settings"]["catalogue"] is None
    assert json.dumps(none) == json.dumps(missing)
    digests = {run("digest", "--data", tmp_path / name).out for name in ("none", "missing")}
    assert len(digests) == 1
    assert beside["recurra"] != none["recurra"]
    # nor does a catalogue change a figure where nothing reads it, whichever events are ranked
    ids = tmp_path / "ids.toml"
    ids.write_text("[model]\nattributes = 0\n[fast]\nattributes = 0\n")
    none, beside, some = (
        _figures(run, *options, "--config", ids, *flags)
        for flags in (("--catalogue", "none"), ("--catalogue", kept), ("--catalogue", kept, "--every", "3"))
    )
    for part in ("recurra", "components", "baselines", "recall_union", "cohorts", "mix_weights"):
        assert beside[part] == none[part]
    assert some["mix_weights"] == none["mix_weights"]


@pytest.mark.parametrize("verb", ["replay", "evaluate"])
def test_a_catalogue_that_cannot_be_read_is_one_sentence(verb: str, tmp_path: Path, run: Run) -> None:
    events, catalogue = _csv(tmp_path / "set")
    missing = tmp_path / "missing.csv"
    assert run.refused(verb, events, "--catalogue", missing) == (
        f"cannot read the catalogue {missing}: No such file or directory"
    )
    assert "Is a directory" in run.refused(verb, events, "--catalogue", tmp_path)
    catalogue.write_bytes(bytes(range(256)) * 4)
    assert "expected a header with an item column" in run.refused(verb, events, "--catalogue", catalogue)


def test_a_file_beside_the_events_that_is_no_catalogue(tmp_path: Path, run: Run) -> None:
    events, catalogue = _csv(tmp_path / "set")
    catalogue.write_text("a,b\n1,2\n")
    words = run.refused("replay", events)
    assert str(catalogue) in words
    assert "--catalogue none leaves it out" in words
    run("replay", events, "--catalogue", "none", "--baselines", "none")


def test_generated_streams_take_no_file_of_the_folder(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lines(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ("--limit", "40", "--baselines", "none", "--json", "-")
    assert run("replay", "synthetic:bots", *options).json["settings"]["catalogue"] is None
    named = run("replay", "synthetic:bots", *options, "--catalogue", "items.jsonl").json
    assert named["settings"]["catalogue"] == "items.jsonl"


def test_evaluate_reads_it_for_models_that_read_attributes(tmp_path: Path, run: Run) -> None:
    events, catalogue = _csv(tmp_path / "set")
    settings = tmp_path / "attributes.toml"
    settings.write_text("[model]\nattributes = 64\nd_model = 16\nlayers = 1\nheads = 2\nhead_dim = 8\nd_state = 8\n")
    common = ("evaluate", events, "--max-len", "8", "--epochs", "2", "--seed", "1", "--json", "-")
    beside = run(*common, "--config", settings).json
    assert beside["settings"]["catalogue"] == "movies.csv"
    assert (beside["records_used"], beside["items_without_record"], beside["records_refused"]) == (4, 2, 1)
    none = run(*common, "--config", settings, "--catalogue", "none").json
    assert none["settings"]["catalogue"] is None
    assert (none["records_used"], none["items_without_record"]) == (0, 6)
    # a vector for each bucket
    assert beside["parameters"] == none["parameters"] + 64 * 16
    # what reads ids alone says so, and asks nothing of a file that only lies there
    ids = tmp_path / "ids.toml"
    ids.write_text("[model]\nattributes = 0\n")
    named = run(*common, "--config", ids, "--catalogue", catalogue)
    assert named.json["settings"]["catalogue"] is None
    assert "the catalogue movies.csv is not used: model.attributes is 0" in named.err
    catalogue.write_text("a,b\n")
    run("evaluate", events, "--model", "item-knn")
    run(*common, "--config", ids)
    assert "--catalogue none" in run.refused(*common, "--config", settings)
