"""Thousands of short lives of one engine under faults, each from a seed; see `world`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from recurra.engine import failpoints

from .world import World

# seeds that failed once, and the fault that they found
FOUND = {12: "of two records of one item in a batch the older one was kept"}


@pytest.mark.night
@pytest.mark.timeout(3_600)
def test_every_seed_keeps_what_was_promised(at_night: bool, forker: Any, tmp_path: Path) -> None:
    first, count = int(os.environ.get("RECURRA_SEED", "0")), 50_000 if at_night else 2_000
    program = Path(__file__).with_name("run.py")
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    halves = [(first, count // 2), (first + count // 2, count - count // 2)]
    logs = [tmp_path / str(start) for start, _ in halves]
    running = [
        forker.start_code(code, [program, start, number], log)
        for (start, number), log in zip(halves, logs, strict=True)
    ]
    statuses = [process.wait(3_600) for process in running]
    for status, log in zip(statuses, logs, strict=True):
        assert status == 0, log.read_text()[-3_000:]
        assert "nothing wrong" in log.read_text()


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
