import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.config import ModelConfig
from recurra.engine.model import SequenceModel, create_model, gap_features
from recurra.simulations.datasets import Stream
from recurra.simulations.leave_one_out import Split, figures, rank_events, rank_scores, split


def stream(users: int = 30, events: int = 600, items: int = 40, seed: int = 0) -> Stream:
    rng = np.random.default_rng(seed)
    who = rng.integers(users, size=events).astype(np.int32)
    what = np.minimum(rng.geometric(0.08, size=events), items).astype(np.int32) - 1
    return Stream(
        name="drawn",
        users=who,
        items=what,
        # many equal times, so that the order of the file decides
        time_ms=1_000 * np.sort(rng.integers(200, size=events)),
        types=np.full(events, -1, np.int16),
        weights=np.full(events, np.nan, np.float32),
        order=np.arange(events),
        user_ids=[str(user) for user in range(users)],
        item_ids=[str(item) for item in range(items)],
        type_names=[],
    )


def sequences(data: Split) -> list[list[int]]:
    bounds = itertools.pairwise(data.log.starts.tolist())
    return [data.log.items[begin:end].tolist() for begin, end in bounds]


def test_everybody_and_everything_that_is_left_has_five_events() -> None:
    given_stream = stream()
    data = split(given_stream)
    found = sequences(data)
    assert min(map(len, found)) >= 5
    counts = Counter(item for sequence in found for item in sequence)
    assert sorted(counts) == list(range(data.items))
    assert min(counts.values()) >= 5
    assert len(data.log) < len(given_stream)
    # events of a user stay in the order of the stream
    assert all((np.diff(data.order[begin:end]) > 0).all() for begin, end in itertools.pairwise(data.log.starts))


def test_nothing_left_is_said() -> None:
    with pytest.raises(ValueError, match="no user has 5 events"):
        split(stream(users=200, events=300))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 5), st.booleans())
def test_windows_cover_what_may_be_learnt_once(length: int, seed: int, shifted: bool) -> None:
    data = split(stream())
    windows = data.train_windows(length, np.random.default_rng(seed) if shifted else None)
    rows = sorted(row for start, stop in zip(*windows, strict=True) for row in range(start, stop))
    want = [
        row
        for first, stop in zip(data.log.starts[:-1].tolist(), data.train_stops.tolist(), strict=True)
        for row in range(first, stop)
    ]
    assert rows == want
    assert int(windows.lengths.max()) <= length
    assert (data.log.users[windows.starts] == data.log.users[windows.stops - 1]).all()


def test_prefixes_end_at_every_event_with_one_before_it() -> None:
    data = split(stream())
    windows = data.prefix_windows(4)
    ends = [
        row
        for first, stop in zip(data.log.starts[:-1].tolist(), data.train_stops.tolist(), strict=True)
        for row in range(first + 1, stop)
    ]
    assert (windows.stops - 1).tolist() == ends
    first = data.log.starts[:-1][data.log.users[ends]]
    assert windows.starts.tolist() == np.maximum(first, np.array(ends) - 4).tolist()


def _model(data: Split, name: str) -> SequenceModel:
    config = ModelConfig(
        name=name,  # type: ignore[arg-type]
        d_model=8,
        layers=1,
        heads=1,
        head_dim=8,
        d_state=4,
        max_length=6,
        attention_heads=1,
        gru_hidden=8,
    )
    model = create_model(config, data.items, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", ["streaming", "paper", "sasrec", "gru4rec"])
@pytest.mark.parametrize("query_time", [False, True])
def test_ranks_are_those_of_one_user_at_a_time(name: str, query_time: bool) -> None:
    data = split(stream())
    model, log = _model(data, name), data.log
    events = data.train_stops + 1
    got = rank_events(model, log, events, 6, query_time=query_time)
    for place, event in enumerate(events.tolist()):
        first = int(log.starts[log.users[event]])
        begin = max(first, event - 6)
        items, times = (torch.from_numpy(column[begin:event])[None] for column in (log.items, log.times_ms))
        with torch.no_grad():
            hidden = model(items, times)[:, -1]
            if query_time:
                phi = gap_features(torch.from_numpy(log.times_ms[begin : event + 1])[None])[:, -1]
                hidden = model.query(hidden, phi)
            scores = (hidden @ model.item_table().T)[0].numpy()
        true, had = int(log.items[event]), set(log.items[first:event].tolist())
        # the same products in another order: a rank may move where two scores are all but equal
        level = {item for item in range(data.items) if abs(scores[item] - scores[true]) < 1e-5} - {true}
        if level:
            continue
        assert got.plain[place] == sum(scores[item] >= scores[true] for item in range(data.items))
        left = [item for item in range(data.items) if item == true or item not in had]
        assert got.masked[place] == sum(scores[item] >= scores[true] for item in left)


def test_ties_count_against_and_a_repeat_stays_a_candidate() -> None:
    data = split(stream())
    events = data.train_stops + 1
    level = rank_scores(np.zeros((len(events), data.items)), data.log, events)
    assert (level.plain == data.items).all()
    for place, event in enumerate(events.tolist()):
        had = set(data.log.items[data.log.starts[data.log.users[event]] : event].tolist()) - {
            int(data.log.items[event])
        }
        assert level.masked[place] == data.items - len(had)


def test_figures() -> None:
    found = figures(np.array([1.0, 3.0, 11.0, 30.0]))
    assert found == {"hr@10": 0.5, "hr@20": 0.75, "ndcg@10": 0.375, "mrr@10": pytest.approx(1 / 3, abs=1e-5)}
