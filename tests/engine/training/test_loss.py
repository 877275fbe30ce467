import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.engine.config import ModelConfig
from recurra.engine.model import StreamingModel, gap_features
from recurra.engine.training.loss import Sampler, spans, window_loss
from recurra.engine.training.windows import Cells, UserLog, all_windows, cells

_ITEMS = 9


def _model(query_time: bool = True) -> StreamingModel:
    config = ModelConfig(d_model=8, layers=1, heads=1, head_dim=8, d_state=4, dropout=0.0, query_time=query_time)
    model = StreamingModel(config, _ITEMS, generator=torch.Generator().manual_seed(1)).double()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _batch(seed: int, users: int = 5, events: int = 40) -> Cells:
    rng = np.random.default_rng(seed)
    log = UserLog.of(
        rng.integers(users, size=events),
        rng.integers(_ITEMS + 2, size=events),
        rng.integers(10**6, size=events),
        np.arange(events),
    )
    # two items of the store are unknown to the model
    return cells(log, all_windows(log, 8), np.minimum(np.arange(_ITEMS + 2), _ITEMS))


def _naive(
    model: StreamingModel, batch: Cells, counted: np.ndarray | None, exclude_own: bool
) -> tuple[torch.Tensor, int]:
    """One event at a time, as serving would do it."""
    losses = []
    for row in range(len(batch.items)):
        for t in range(int(batch.lengths[row])):
            target = int(batch.items[row, t])
            before = batch.items[row : row + 1, :t]
            if target == _ITEMS or (counted is not None and not counted[row, t]):
                continue
            if exclude_own and target in before:
                continue
            hidden = model(before, batch.times_ms[row : row + 1, :t])[:, -1]
            if model.query_time is not None:
                hidden = model.query(hidden, gap_features(batch.times_ms[row : row + 1, : t + 1])[:, t])
            logits = (hidden @ model.item_table().T)[0]
            left = [item for item in range(_ITEMS) if not exclude_own or item == target or item not in before]
            losses.append(torch.logsumexp(logits[left], 0) - logits[target])
    return torch.stack(losses).mean(), len(losses)


@pytest.mark.parametrize("exclude_own", [True, False])
@pytest.mark.parametrize("query_time", [True, False])
@pytest.mark.parametrize("some", [True, False])
def test_the_loss_and_its_gradients_are_those_of_single_events(exclude_own: bool, query_time: bool, some: bool) -> None:
    model, batch = _model(query_time), _batch(3)
    counted = np.random.default_rng(4).random(batch.rows.shape) < 0.5 if some else None
    want, count = _naive(model, batch, counted, exclude_own)
    want_gradients = torch.autograd.grad(want, list(model.parameters()), allow_unused=True)
    got, events = window_loss(model, batch, counted=counted, exclude_own=exclude_own)
    gradients = torch.autograd.grad(got, list(model.parameters()), allow_unused=True)
    assert events == count
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    for gradient, wanted in zip(gradients, want_gradients, strict=True):
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("exclude_own", [True, False])
def test_each_item_drawn_once_gives_the_exact_loss(exclude_own: bool) -> None:
    model, batch = _model(), _batch(5)
    exact, events = window_loss(model, batch, exclude_own=exclude_own)
    every = torch.arange(_ITEMS).flip(0), torch.zeros(_ITEMS)
    sampled, counted = window_loss(model, batch, exclude_own=exclude_own, negatives=every)
    assert counted == events
    torch.testing.assert_close(sampled, exact, rtol=1e-6, atol=1e-6)
    # the same item drawn twice, each time expected twice
    twice = torch.arange(_ITEMS).repeat(2), torch.full((2 * _ITEMS,), float(np.log(2.0)))
    again, _ = window_loss(model, batch, exclude_own=exclude_own, negatives=twice)
    torch.testing.assert_close(again, exact, rtol=1e-6, atol=1e-6)


def test_the_sampler_draws_as_often_as_it_says() -> None:
    counts = np.array([0, 5, 95, 0])
    items, expected = Sampler.of(counts, 200_000).draw(np.random.default_rng(0))
    drawn = np.bincount(items, minlength=4)
    per_item = {int(item): float(log) for item, log in zip(items, expected, strict=True)}
    for item in range(4):
        assert np.exp(per_item[item]) == pytest.approx(200_000 * (counts[item] / 200 + 1 / 8), rel=1e-5)
        assert drawn[item] == pytest.approx(np.exp(per_item[item]), rel=0.03)


def test_a_batch_without_countable_events_has_no_loss() -> None:
    log = UserLog.of(np.zeros(3, np.int64), np.zeros(3, np.int64), np.arange(3), np.arange(3))
    unknown = cells(log, all_windows(log, 8), np.array([_ITEMS]))
    model = _model()
    for negatives in (None, (torch.arange(2), torch.zeros(2))):
        loss, events = window_loss(model, unknown, negatives=negatives)
        loss.backward()  # type: ignore[no-untyped-call]
        assert (events, loss.item()) == (0, 0.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_spans_are_all_pairs(bounds: list[tuple[int, int]]) -> None:
    first, last = (np.array([bound[side] for bound in bounds], np.int64) for side in (0, 1))
    index, value = spans(first, last)
    want = [(i, j) for i, (begin, end) in enumerate(bounds) for j in range(begin, end)]
    assert list(zip(index.tolist(), value.tolist(), strict=True)) == want
