"""ADER's protocol: what is learnt, what is ranked and among what, and that a stopped run goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from recurra.engine.config import Config
from recurra.engine.errors import InputError
from recurra.engine.model import StreamingModel
from recurra.engine.training import UserLog
from recurra.simulations.ader import Periods, _exemplars, evaluate, figures, protocol_config, rank_sessions
from recurra.simulations.ader_report import PUBLISHED, write_ader_report
from recurra.simulations.datasets import Stream, load

_ITEMS = 24


def _write(directory: Path, periods: list[list[tuple[int, int]]]) -> Stream:
    directory.mkdir(exist_ok=True)
    for number, rows in enumerate(periods):
        text = "".join(f"{session} {item}\n" for session, item in rows)
        (directory / f"period_{number}.txt").write_text(text)
    return load(directory)


def _walks(seed: int, sessions: int, items: int) -> list[tuple[int, int]]:
    """Draw sessions in which an item is mostly followed by the next one; those of three take turns."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, items, sessions)
    rows = []
    for first in range(0, sessions, 3):
        for step in range(5):
            for session in range(first, min(first + 3, sessions)):
                item = rng.integers(items) if rng.random() < 0.1 else (starts[session] + step) % items
                rows.append((1_000 * seed + session, int(item)))
    return rows


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    sizes = (_ITEMS - 8, _ITEMS - 4, _ITEMS, _ITEMS)
    return _write(tmp_path_factory.mktemp("ader") / "walks", [_walks(1 + k, 60, n) for k, n in enumerate(sizes)])


@pytest.fixture(scope="module")
def small() -> Config:
    base = protocol_config()
    model = msgspec.structs.replace(base.model, d_model=16, heads=2, head_dim=8, d_state=8, dropout=0.0)
    training = msgspec.structs.replace(base.training, first_passes=8, tokens_per_event=4, batch_events=256)
    return msgspec.structs.replace(base, model=model, training=training)


@pytest.fixture(scope="module")
def replayed(stream: Stream, small: Config) -> dict[str, Any]:
    return evaluate(stream, config=small, exemplars=80)


def test_a_session_in_two_periods_is_two_and_new_items_and_single_actions_go(tmp_path: Path) -> None:
    data = Periods.of(
        _write(tmp_path / "d", [[(1, 50), (2, 60), (1, 60)], [(1, 50), (3, 70), (1, 70), (1, 60), (4, 50)]])
    )
    assert data.last == 1
    assert data.period.tolist() == [0, 0, 1, 1, 1]
    assert [data.items_before(period) for period in (0, 1, 2)] == [0, 2, 3]
    assert data.targets.tolist() == [1, 0, 2, 0, 0]
    test = data.test(1)
    # item 70 was never learnt, session 3 is nothing without it, session 4 has one action
    assert test.items.tolist() == [0, 1]
    everything, sessions = data.chosen(np.ones(8, np.bool_))
    assert (everything.items.tolist(), sessions.tolist()) == ([0, 1, 0, 2, 1], [0, 2])


def test_ranks_are_those_of_a_loop_and_ties_count_against(stream: Stream, small: Config) -> None:
    data = Periods.of(stream)
    items = data.items_before(1)
    log = data.test(1)
    model = StreamingModel(small.model, items, generator=torch.Generator().manual_seed(3)).eval()
    with torch.no_grad():
        model.embedding[:items].mul_(50).round_()
        model.embedding[1] = model.embedding[0]
        expected = []
        for begin, end in zip(log.starts[:-1].tolist(), log.starts[1:].tolist(), strict=True):
            rows = torch.from_numpy(log.items[begin:end])[None]
            hidden = model(rows, torch.zeros_like(rows))[0]
            for place in range(1, end - begin):
                scores = (hidden[place] @ model.item_table().T).tolist()
                true = scores[log.items[begin + place]]
                expected.append(sum(score >= true - 1e-4 for score in scores))
    ranks = rank_sessions(model, log)
    assert np.mean(ranks == expected) > 0.99
    assert ranks[(np.delete(log.items, log.starts[:-1])) < 2].min() >= 2


def test_a_bonus_puts_what_the_session_had_first(small: Config) -> None:
    model = StreamingModel(small.model, 9, generator=torch.Generator().manual_seed(3))
    items = np.array([4, 2, 4, 4, 7, 2, 1, 1])
    users, place = np.array([0, 0, 0, 0, 0, 0, 1, 1]), np.arange(8)
    log = UserLog.of(users, items, place, place)
    plain, preferred = rank_sessions(model, log), rank_sessions(model, log, own_bonus=1e3)
    # targets 2, 4, 4, 7, 2 and 1: among two, two and three items that were there before, and behind one and two
    repeats = [1, 2, 4, 5]
    assert (preferred[repeats] <= [2, 2, 3, 1]).all()
    assert (preferred[[0, 3]] > [1, 2]).all()
    assert (preferred[repeats] <= plain[repeats]).all()


def test_exemplars_keep_rare_items_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    # 100 sessions of two common items, 10 of a rare one and a common one
    items = np.concatenate([np.tile([0, 1], 100), np.stack((np.arange(2, 12), np.zeros(10, int)), 1).ravel()])
    users, place = np.repeat(np.arange(110), 2), np.arange(220)
    log = UserLog.of(users, items, place, place)
    kept = _exemplars(log, np.ones(110, np.bool_), np.ones(110, np.int64), 30, rng)
    assert kept.sum() == 30
    assert kept[100:].sum() >= 9


def test_figures_are_shares() -> None:
    assert figures(np.array([1.0, 20.0, 15.0, 21.0])) == {
        "recall@20": 0.75,
        "recall@10": 0.25,
        "mrr@20": round((1 + 1 / 20 + 1 / 15) / 4, 5),
    }


def test_it_learns_and_says_what_it_did(replayed: dict[str, Any]) -> None:
    assert [entry["period"] for entry in replayed["periods"]] == [1, 2, 3]
    assert [entry["items"] for entry in replayed["periods"]] == [_ITEMS - 8, _ITEMS - 4, _ITEMS]
    first, second, third = replayed["periods"]
    assert third["recall@10"] > 1.5 * 10 / _ITEMS
    # 60 sessions of five without a tenth, and 80 targets of earlier ones at most
    assert 200 < first["trained_events"] < 300
    assert 300 < second["trained_events"] <= 300 + 80 * 5 / 4
    assert third["valid"].keys() == {"recall@20", "recall@10", "mrr@20", "without_bonus"}
    assert replayed["mean"]["mrr@20"] == pytest.approx(np.mean([e["mrr@20"] for e in replayed["periods"]]), abs=1e-5)


def test_a_stopped_run_goes_on_to_the_same_result(
    stream: Stream, small: Config, replayed: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "run.pt"

    def stop(done: int, _total: int, _now: dict[str, float]) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(stream, config=small, exemplars=80, checkpoint=file, progress=stop)
    with pytest.raises(InputError, match="other settings"):
        evaluate(stream, config=small, exemplars=81, checkpoint=file)
    again = evaluate(stream, config=small, exemplars=80, checkpoint=file)
    keys = ("period", "recall@20", "mrr@20", "valid", "loss", "trained_events")
    assert [[entry[key] for key in keys] for entry in again["periods"]] == [
        [entry[key] for key in keys] for entry in replayed["periods"]
    ]
    assert not file.exists()
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot go on"):
        evaluate(stream, config=small, checkpoint=file)


def test_strategies_go_on_from_the_same_first_period(
    stream: Stream, small: Config, replayed: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "run.pt"

    def stop(_done: int, _total: int, _now: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(stream, config=small, strategy="finetune", exemplars=80, checkpoint=file, progress=stop)
    with pytest.raises(InputError, match="other settings"):
        evaluate(stream, config=small, strategy="joint", exemplars=80, checkpoint=file)
    again = evaluate(stream, config=small, exemplars=80, checkpoint=file)
    assert [entry["recall@20"] for entry in again["periods"]] == [entry["recall@20"] for entry in replayed["periods"]]


def test_nothing_kept_is_nothing_but_the_newest_period(stream: Stream, small: Config) -> None:
    result = evaluate(stream, config=small, exemplars=0, periods=[2])
    (entry,) = result["periods"]
    assert entry["period"] == 2
    assert 200 < entry["trained_events"] < 300


def test_joint_learns_everything_anew(stream: Stream, small: Config) -> None:
    result = evaluate(stream, config=small, strategy="joint", periods=[3])
    (entry,) = result["periods"]
    assert (result["strategy"], entry["period"]) == ("joint", 3)
    assert 800 < entry["trained_events"] < 900
    assert entry["recall@10"] > 1.5 * 10 / _ITEMS


def test_the_page_shows_every_period(
    replayed: dict[str, Any], plots_of: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    page = write_ader_report(replayed, tmp_path / "report").read_text()
    plots = plots_of(page)
    assert len(plots) == len(PUBLISHED) + 2
    for plot, key in zip(plots, [*PUBLISHED, "seconds", "trained_events"], strict=True):
        ours = plot.traces[replayed["strategy"]]
        assert ours["x"] == [1, 2, 3]
        assert ours["y"] == [entry[key] for entry in replayed["periods"]]
        assert {name: plot.traces[f"{name}, mean"]["y"] for name in PUBLISHED.get(key, {})} == {
            name: [value] * 3 for name, value in PUBLISHED.get(key, {}).items()
        }
    assert page.count("<tr>") == 1 + 3
    alone = replayed["mean"]["without_bonus"]["recall@20"]
    assert f"before: Recall@20 {alone:.4f}" in page
    assert alone == pytest.approx(
        np.mean([entry["without_bonus"]["recall@20"] for entry in replayed["periods"]]), abs=1e-5
    )
    assert msgspec.json.decode((tmp_path / "report" / "ader.json").read_bytes()) == replayed


@pytest.mark.parametrize("periods", [[0], [4], []])
def test_periods_that_are_not_there_are_said(periods: list[int], stream: Stream, small: Config) -> None:
    with pytest.raises(InputError, match="periods 1 to 3 can be tested"):
        evaluate(stream, config=small, periods=periods)


def test_one_file_is_too_few(tmp_path: Path, small: Config) -> None:
    with pytest.raises(InputError, match="at least two files"):
        evaluate(_write(tmp_path / "one", [[(1, 1), (1, 2)]]), config=small)


def test_the_real_files_are_as_the_protocol_says(shared_data: Callable[[str], Path]) -> None:
    data = Periods.of(load(shared_data("ader-diginetica"), limit=110_000))
    assert data.last == 2
    assert data.items_before(1) == 18_569
    test = data.test(1)
    # 6,858 of the 37,586 actions have new items
    assert (len(test), len(test.starts) - 1) == (29_952, 6_847)
