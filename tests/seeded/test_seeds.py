"""Thousands of short lives of one engine under faults, each from a seed; see `world`."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from recurra.engine import failpoints

from .world import World

# seeds that failed once, and the fault that they found
FOUND = {12: "of two records of one item in a batch the older one was kept"}


@pytest.mark.night
@pytest.mark.timeout(3_600)
def test_every_seed_keeps_what_was_promised(at_night: bool) -> None:
    first, count = int(os.environ.get("RECURRA_SEED", "0")), 50_000 if at_night else 2_000
    program = str(Path(__file__).with_name("run.py"))
    halves = [(first, count // 2), (first + count // 2, count - count // 2)]
    running = [
        subprocess.Popen(
            [sys.executable, program, *map(str, half)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        for half in halves
    ]
    ended = [(*process.communicate(), process.returncode) for process in running]
    for out, err, status in ended:
        assert status == 0, err[-3_000:]
        assert "nothing wrong" in out


def _run(seeds: Iterable[int], patch: pytest.MonkeyPatch) -> None:
    for seed in seeds:
        World(seed, patch).run()


@pytest.mark.parametrize("seed", FOUND)
def test_what_a_seed_has_found_stays_mended(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    _run([seed], monkeypatch)


def test_a_build_with_two_writes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_pause_s", 0.0)
    with pytest.raises(AssertionError, match=r"seed \d+ after"):
        _run(range(200), monkeypatch)


def test_records_of_an_item_in_one_batch_count_in_their_order(tmp_path: Path) -> None:
    import recurra

    with recurra.open(tmp_path / "data") as engine:
        engine.ingest([recurra.Item("a", "old"), recurra.Item("a", "new", available=False)])
        engine.ingest(
            [recurra.Item("b", "old"), recurra.Event("u", "b", 1), recurra.Item("b", "newer"), recurra.Item("b", "new")]
        )
        titles = [engine._store.items.record(row) for row in (0, 1)]
    assert [title and title.title for title in titles] == ["new", "new"]
