import numpy as np
import pytest
import torch

from recurra.engine.config import ModelConfig
from recurra.engine.model import StreamingModel, gap_features
from recurra.engine.training.loss import Drawn, Sampler, targets, window_loss
from recurra.engine.training.windows import PackedWindows, UserLog, all_windows, pack

_ITEMS = 9


def _model(query_time: bool = True) -> StreamingModel:
    config = ModelConfig(d_model=8, layers=1, heads=1, head_dim=8, d_state=4, dropout=0.0, query_time=query_time)
    model = StreamingModel(config, _ITEMS, generator=torch.Generator().manual_seed(1)).double()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _batch(seed: int, users: int = 5, events: int = 40) -> PackedWindows:
    rng = np.random.default_rng(seed)
    log = UserLog.of(
        rng.integers(users, size=events),
        rng.integers(_ITEMS + 2, size=events),
        rng.integers(10**6, size=events),
        np.arange(events),
    )
    # two items of the store are unknown to the model
    return pack(log, all_windows(log, 8), np.minimum(np.arange(_ITEMS + 2), _ITEMS))


def _naive(
    model: StreamingModel, batch: PackedWindows, counted: np.ndarray | None, seen_weight: float
) -> tuple[torch.Tensor, int]:
    """One event at a time, as serving would do it."""
    losses = []
    all_items, all_times = torch.from_numpy(batch.items), torch.from_numpy(batch.times_ms)
    for begin, end in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        for t in range(begin, end):
            target = int(all_items[t])
            before, times = all_items[None, begin:t], all_times[None, begin:t]
            if target == _ITEMS or (counted is not None and not counted[t]):
                continue
            if seen_weight == 0 and target in before:
                continue
            hidden = model(before, times)[:, -1]
            if model.query_time is not None:
                hidden = model.query(hidden, gap_features(all_times[None, begin : t + 1])[:, -1])
            logits = (hidden @ model.item_table().T)[0]
            shift = [seen_weight if item in before and item != target else 1.0 for item in range(_ITEMS)]
            losses.append(torch.logsumexp(logits + torch.tensor(shift).double().log(), 0) - logits[target])
    return torch.stack(losses).mean(), len(losses)


def _loss(
    model: StreamingModel,
    batch: PackedWindows,
    *,
    counted: np.ndarray | None = None,
    seen_weight: float = 0.0,
    drawn: Drawn | None = None,
) -> tuple[torch.Tensor, int]:
    chosen = targets(batch, model.items, counted=counted, seen_weight=seen_weight, drawn=drawn)
    return window_loss(model, model.item_table(), batch, chosen, drawn=drawn), len(chosen.events)


@pytest.mark.parametrize("seen_weight", [0.0, 1.0, 8.0])
@pytest.mark.parametrize("query_time", [True, False])
@pytest.mark.parametrize("some", [True, False])
def test_the_loss_and_its_gradients_are_those_of_single_events(
    seen_weight: float, query_time: bool, some: bool
) -> None:
    model, batch = _model(query_time), _batch(3)
    counted = np.random.default_rng(4).random(batch.rows.shape) < 0.5 if some else None
    want, count = _naive(model, batch, counted, seen_weight)
    want_gradients = torch.autograd.grad(want, list(model.parameters()), allow_unused=True)
    got, events = _loss(model, batch, counted=counted, seen_weight=seen_weight)
    gradients = torch.autograd.grad(got, list(model.parameters()), allow_unused=True)
    assert events == count
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
    for gradient, wanted in zip(gradients, want_gradients, strict=True):
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("seen_weight", [0.0, 1.0, 8.0])
def test_each_item_drawn_once_gives_the_exact_loss(seen_weight: float) -> None:
    model, batch = _model(), _batch(5)
    exact, events = _loss(model, batch, seen_weight=seen_weight)
    every = Drawn(np.arange(_ITEMS), np.zeros(_ITEMS, np.float32))
    sampled, counted = _loss(model, batch, seen_weight=seen_weight, drawn=every)
    assert counted == events
    torch.testing.assert_close(sampled, exact, rtol=1e-6, atol=1e-6)
    # the same item drawn twice, each time expected twice
    twice = Drawn(np.arange(_ITEMS).repeat(2), np.full(2 * _ITEMS, np.log(2.0), np.float32))
    again, _ = _loss(model, batch, seen_weight=seen_weight, drawn=twice)
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
    unknown = pack(log, all_windows(log, 8), np.array([_ITEMS]))
    model = _model()
    for drawn in (None, Drawn(np.arange(2), np.zeros(2, np.float32))):
        loss, events = _loss(model, unknown, drawn=drawn)
        loss.backward()  # type: ignore[no-untyped-call]
        assert (events, loss.item()) == (0, 0.0)


def test_windows_may_be_trained_without_the_time_of_the_query() -> None:
    model, batch = _model(), _batch(6)
    chosen = targets(batch, _ITEMS)
    bare, modulated, mixed = (
        window_loss(model, model.item_table(), batch, chosen, query_time=picked).item()
        for picked in (np.zeros(len(batch.items), np.bool_), None, batch.windows % 2 == 0)
    )
    plain = _model()
    plain.query_time = None
    assert bare == pytest.approx(window_loss(plain, plain.item_table(), batch, chosen).item(), rel=1e-12)
    assert len({bare, modulated, mixed}) == 3
