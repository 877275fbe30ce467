import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Run

_KEYS = {
    "protocol",
    "model",
    "test",
    "test_masked",
    "valid",
    "best_epoch",
    "epoch_s",
    "train_events_per_s",
    "parameters",
    "seed",
}


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    file = tmp_path / "events.jsonl"
    with file.open("w") as out:
        for number in range(900):
            event = {"user": int(rng.integers(40)), "item": int(rng.integers(30)), "time": 1_700_000_000_000 + number}
            out.write(json.dumps(event) + "\n")
    return file


@pytest.mark.parametrize("model", ["streaming", "sasrec"])
def test_the_json_has_what_scripts_ask_for(model: str, events: Path, tmp_path: Path, run: Run) -> None:
    arguments: list[str | Path] = [
        "evaluate",
        events,
        "--model",
        model,
        "--max-len",
        "16",
        "--epochs",
        "1",
        "--seed",
        "5",
    ]
    done = run(*arguments, "--checkpoint", tmp_path / "run.pt", "--json", "-")
    assert done.json.keys() >= _KEYS
    assert done.json["test"].keys() == {"hr@10", "hr@20", "ndcg@10", "mrr@10"}
    assert (done.json["model"], done.json["seed"], done.json["best_epoch"]) == (model, 5, 1)
    assert ("test_query_time" in done.json) == (model == "streaming")


def test_counting_models_and_the_table(events: Path, run: Run) -> None:
    done = run("evaluate", events, "--model", "item-knn")
    assert "test, history masked" in done.out


def test_without_time(events: Path, run: Run) -> None:
    done = run("evaluate", events, "--time", "off", "--max-len", "8", "--epochs", "1", "--json", "-")
    assert not done.json["time"]
    assert "test_query_time" not in done.json


def test_period_by_period(tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    directory = tmp_path / "weeks"
    directory.mkdir()
    for week in range(4):
        rows = [f"{session} {item}\n" for session in range(30) for item in rng.permutation(12)[:4]]
        (directory / f"period_{week}.txt").write_text("".join(rows))
    settings = tmp_path / "small.toml"
    settings.write_text(
        "[model]\nd_model = 8\nheads = 1\ntime = false\nquery_time = false\n[training]\nfirst_passes = 2\n"
    )
    arguments: list[str | Path] = [
        "evaluate",
        directory,
        "--protocol",
        "ader",
        "--config",
        settings,
        "--exemplars",
        "20",
        "--seed",
        "2",
    ]
    done = run(*arguments, "--periods", "1-2", "--report", tmp_path / "page", "--json", "-")
    assert (done.json["protocol"], done.json["strategy"], done.json["seed"]) == ("ader", "replay+distill+average", 2)
    assert [entry["period"] for entry in done.json["periods"]] == [1, 2]
    assert done.json["periods"][0].keys() >= {"recall@20", "recall@10", "mrr@20", "seconds"}
    assert done.json["mean"].keys() >= {"recall@20", "recall@10", "mrr@20"}
    assert (tmp_path / "page" / "index.html").exists()
    shown = run(*arguments, "--periods", "3", "--strategy", "joint")
    assert shown.out.splitlines()[-2].startswith("mean")
    assert "without the bonus" in shown.out.splitlines()[-1]
    assert "--periods expects numbers" in run.refused(*arguments, "--periods", "first")
    assert "--model streaming" in run.refused(*arguments, "--model", "sasrec")
    assert "--catalogue is for --protocol loo" in run.refused(*arguments, "--catalogue", "items.jsonl")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "magic"], "--model expects streaming or paper"),
        (["--protocol", "all"], "--protocol expects"),
        (["--time", "maybe"], "--time expects"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], words: str, events: Path, run: Run) -> None:
    assert words in run.refused("evaluate", events, *arguments)


def test_too_little_data_is_said(tmp_path: Path, run: Run) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"user": "a", "item": str(k), "time": k}) + "\n" for k in range(9)))
    assert "no user has 5 events" in run.refused("evaluate", few)
    assert "no-such-file" in run.refused("evaluate", tmp_path / "no-such-file")
