"""The commands that ask and change a store: what they print, and what they refuse."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import recurra
from recurra.connectors.http import Listener, create_app
from recurra.engine.config import TrainingConfig

from .conftest import START_MS, Run


def test_recommend(run: Run, data: Path) -> None:
    text = run("recommend", "u1", "-k", "3", "--data", data)
    assert "Title" in text.out
    answer = run("recommend", "u1", "-k", "3", "--data", data, "--json", "-").json
    assert len(answer["items"]) == len(answer["scores"]) == 3
    assert answer["version"] == 0
    assert all(item in text.out for item in answer["items"])
    drama = run("recommend", "u1", "--where", "'Drama' in categories", "--data", data, "--json", "-").json
    assert all(int(item[1:]) % 2 for item in drama["items"])


def test_explain_and_time(run: Run, data: Path) -> None:
    by_number = run("recommend", "u1", "--at", "1700000100000", "--explain", "--data", data, "--json", "-").json
    by_text = run("recommend", "u1", "--at", "2023-11-14T22:15:00Z", "--explain", "--data", data, "--json", "-").json
    assert by_number == by_text
    assert len(by_text["explain"]) == len(by_text["items"])
    shown = run("recommend", "u1", "--explain", "--data", data)
    assert "popularity" in shown.out
    assert re.search(r"scores of: [\w-]+ ", shown.out)
    assert re.search(r"recent NDCG@10: (nothing learnt yet|[\w-]+ [01]\.\d{4})", shown.out)
    assert re.search(r"weights in the combination.*: .*popularity-500 [+-]\d\.\d\d [+-]\d\.\d\d", shown.out)


def test_somebody_unknown_gets_what_is_popular(run: Run, data: Path) -> None:
    assert run("recommend", "nobody", "--data", data, "--json", "-").json["source"] == "popular"


def test_similar_and_history(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("similar", "m1", "-k", "2", "--data", data, "--json", "-").json["items"]
    kept = run("history", "u1", "--data", data, "--json", "-").json
    assert [event["time_ms"] for event in kept["events"]] == [START_MS + (8 * i + 1) * 1_000 for i in range(5)]
    assert kept["events"][0]["type"] == "play"
    assert "2023-11-14T22:13:21.000Z" in run("history", "u1", "--data", data).out
    target = tmp_path / "history.json"
    run("history", "u1", "--data", data, "--json", target)
    assert json.loads(target.read_text()) == kept


def test_digest_is_the_engines(run: Run, data: Path) -> None:
    text = run("digest", "--data", data)
    with recurra.open(data, read_only=True) as engine:
        assert text.out.strip() == engine.digest()
    assert run("digest", "--data", data, "--json", "-").json == {"digest": text.out.strip()}


def test_versions_of_a_store_without_one(run: Run, data: Path) -> None:
    assert run("versions", "--data", data, "--json", "-").json == []
    assert "no version" in run("versions", "--data", data).out


def test_forget(run: Run, tmp_path: Path) -> None:
    with recurra.open(tmp_path) as engine:
        engine.ingest([recurra.Event("ann", "m1", START_MS), recurra.Event("bob", "m1", START_MS)])
    assert run("forget", "ann", "--data", tmp_path, "--json", "-").json == {"user": "ann", "forgotten": True}
    assert "ann" in run.refused("history", "ann", "--data", tmp_path)
    run("history", "bob", "--data", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend", "u1", "-k", "0"], "k must be an integer from 1"),
        (["recommend", "u1", "-k", "1000000000"], "k must be an integer from 1"),
        (["recommend", "u1", "--at", "yesterday"], "expected a time in milliseconds or like 2026"),
        (["recommend", "u1", "--where", "import os"], "cannot read the filter"),
        (["history", "nobody"], "user 'nobody' is not known"),
        (["forget", "nobody"], "nothing is kept of a user 'nobody'"),
        (["similar", "nothing"], "item 'nothing' is not known"),
        (["rollback", "7"], "version 7"),
        (["recommend", "u1", "--config", "/no/such.toml"], "no configuration file at /no/such.toml"),
        (["audit", "--source", "/no/such.inter"], "/no/such.inter"),
        (["audit", "--source", "kafka://nonsense"], "expected kafka://HOST:PORT/TOPIC"),
    ],
)
def test_what_is_refused(run: Run, data: Path, arguments: list[str], words: str) -> None:
    before = run("digest", "--data", data).out
    assert words in run.refused(*arguments, "--data", data)
    assert run("digest", "--data", data).out == before


def test_there_must_be_a_store(run: Run, tmp_path: Path) -> None:
    for arguments in (["recommend", "u1"], ["forget", "u1"], ["digest"], ["doctor"], ["train", "--once"]):
        assert f"no store at {tmp_path / 'none'}" in run.refused(*arguments, "--data", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in run.refused("history", "u1", "--data", tmp_path / "empty")


def test_a_store_of_a_newer_format(run: Run, tmp_path: Path) -> None:
    with recurra.open(tmp_path) as engine:
        engine.ingest([recurra.Event("ann", "m1", START_MS)])
    (tmp_path / "store" / "FORMAT").write_text("999\n")
    for arguments in (["history", "ann"], ["forget", "ann"], ["digest"]):
        assert "999" in run.refused(*arguments, "--data", tmp_path)
    (tmp_path / "store" / "FORMAT").write_text("1\n")


@pytest.fixture(scope="class")
def url(data: Path) -> Iterator[str]:
    """Serve the store, which is in use then."""
    with recurra.open(data, recurra.Config(training=TrainingConfig(mode="off"))) as engine:
        listener = Listener("127.0.0.1", 0)
        listener.start(create_app(engine))
        yield listener.url
        listener.close()


class TestOverHttp:
    def test_the_same_as_from_the_directory(self, run: Run, data: Path, url: str) -> None:
        # while the service has the store open, reading verbs still read it
        for arguments in (
            ["recommend", "u1", "--at", str(START_MS + 60_000)],
            ["similar", "m1"],
            ["history", "u1"],
            ["versions"],
        ):
            by_url = run(*arguments, "--url", url, "--json", "-")
            assert by_url.json == run(*arguments, "--data", data, "--json", "-").json

    def test_digest_is_that_of_the_directory(self, run: Run, data: Path, url: str) -> None:
        assert run("digest", "--url", url).out == run("digest", "--data", data).out
        assert "exclude each other" in run.refused("digest", "--url", url, "--data", data)

    def test_a_filter_of_similar_items(self, run: Run, data: Path, url: str) -> None:
        ask = ("similar", "m1", "--where", "brnd == 'Nike'")
        for place in (("--url", url), ("--data", data)):
            assert "note: no item has an attribute 'brnd'" in run(*ask, *place).out

    def test_writing_verbs_name_the_holder(self, run: Run, data: Path, url: str) -> None:
        for arguments in (["forget", "u1"], ["rollback", "1"], ["train", "--once"]):
            sentence = run.refused(*arguments, "--data", data)
            assert "--url" in sentence
            assert "pid" in sentence or "process" in sentence

    def test_writing_verbs_work_by_url(self, run: Run, url: str) -> None:
        assert run("forget", "u7", "--url", url, "--json", "-").json["forgotten"] is True
        assert "nothing is kept" in run.refused("forget", "u7", "--url", url, "--json", "/dev/null")
        assert "version 3" in run.refused("rollback", "3", "--url", url)

    def test_errors_are_the_same(self, run: Run, data: Path, url: str) -> None:
        for arguments in (["recommend", "u1", "-k", "0"], ["history", "nobody"], ["similar", "nothing"]):
            assert run.refused(*arguments, "--url", url) == run.refused(*arguments, "--data", data)

    def test_one_or_the_other(self, run: Run, data: Path, url: str) -> None:
        assert "exclude each other" in run.refused("history", "u1", "--url", url, "--data", data)


def test_nobody_listens(run: Run) -> None:
    assert "cannot reach a recurra service" in run.refused("history", "u1", "--url", "http://127.0.0.1:9")
    assert "expected a service address" in run.refused("history", "u1", "--url", "nonsense")
