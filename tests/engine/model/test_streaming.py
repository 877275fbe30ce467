import copy
import itertools
from typing import Any

import msgspec
import pytest
import torch
from torch.nn import functional as F

from recurra.engine.config import ModelConfig
from recurra.engine.model import StreamingModel, create_model, gap_features

ITEMS = 40
LENGTHS = [1, 2, 63, 64, 65, 0, 200]
SMALL = ModelConfig(d_model=8, heads=2, head_dim=6, d_state=4, time_hidden=5)


def moved(config: ModelConfig = SMALL, items: int = ITEMS) -> StreamingModel:
    """A model whose parameters have all left their initial values, so that a forgotten one shows."""
    model = StreamingModel(config, items).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.2)
    return model


def batch(b: int, length: int, items: int = ITEMS) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    rows = torch.randint(items + 1, (b, length), generator=generator)
    times_ms = torch.randint(10_000_000, (b, length), generator=generator).cumsum(1)
    return rows, times_ms


def by_hand(model: StreamingModel, items: list[int], times_ms: torch.Tensor) -> torch.Tensor:
    """The equations of the module's docstring for one user, event by event; returns the vector after the last."""
    c = model.config
    e, n, h, p = c.heads * c.head_dim, c.d_state, c.heads, c.head_dim
    state = [torch.zeros(h, p, n, dtype=torch.float64) for _ in model.layers]
    window: list[list[Any]] = [[torch.zeros(e + 2 * n, dtype=torch.float64)] * 3 for _ in model.layers]
    phi = F.pad(gap_features(times_ms[None])[0], (0, 0, 1, 0))
    layers: list[Any] = list(model.layers)
    a = torch.zeros(c.d_model)
    for t, item in enumerate([model.start_row, *items]):
        vector = model.embedding[item]
        a = F.layer_norm(vector, (c.d_model,), model.in_norm.weight, model.in_norm.bias, c.norm_eps)
        for k, layer in enumerate(layers):
            z, xbc, s = torch.split(layer.in_proj.weight @ a + layer.in_proj.bias, [e, e + 2 * n, h])
            window[k] = [*window[k], xbc]
            filtered: torch.Tensor = layer.conv_bias + sum(layer.conv_weight[:, j] * window[k][j] for j in range(4))
            window[k] = window[k][1:]
            x, B, C = torch.split(filtered * torch.sigmoid(filtered), [e, n, n])
            gamma, beta = torch.zeros(h), torch.zeros(h)
            if layer.time is not None:
                u = layer.time.first.weight @ phi[t] + layer.time.first.bias
                gamma, beta = torch.chunk(layer.time.last.weight @ (u * torch.sigmoid(u)) + layer.time.last.bias, 2)
            delta = torch.log1p(torch.exp(s * (1 + gamma) + beta + layer.dt_bias))
            y = []
            for j in range(h):
                xj = x[j * p : j * p + p]
                decay = torch.exp(-delta[j] * torch.exp(layer.A_log[j]))
                state[k][j] = decay * state[k][j] + delta[j] * torch.outer(xj, B)
                y.append(state[k][j] @ C + layer.D[j] * xj)
            v = torch.cat(y) * z * torch.sigmoid(z)
            v = v / torch.sqrt((v * v).mean() + c.norm_eps) * layer.gate_norm
            o = layer.out_proj.weight @ v + layer.out_proj.bias
            if c.layers > 1:
                o = o + a
            mid = F.layer_norm(o, (c.d_model,), layer.norm.weight, layer.norm.bias, c.norm_eps)
            inner = layer.ffn_in.weight @ mid + layer.ffn_in.bias
            inner = inner * torch.clamp(inner + 3, 0, 6) / 6
            out = layer.ffn_out.weight @ inner + layer.ffn_out.bias + mid
            a = F.layer_norm(out, (c.d_model,), layer.ffn_norm.weight, layer.ffn_norm.bias, 1e-12)
    return a


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("backend", ["naive", "chunk"])
def test_forward_is_what_the_equations_say(layers: int, time: bool, backend: str) -> None:
    config = ModelConfig(d_model=8, layers=layers, heads=2, head_dim=6, d_state=4, time_hidden=5, time=time)
    model = moved(config)
    items, times_ms = batch(2, 9)
    with torch.no_grad():
        hidden = model(items, times_ms, backend=backend)
        for row in range(2):
            want = by_hand(model, items[row].tolist(), times_ms[row])
            torch.testing.assert_close(hidden[row, -1], want, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(hidden[0, 0], by_hand(model, [], times_ms[0, :0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_chunked_scan_gives_the_naive_model_with_gradients(length: int) -> None:
    items, times_ms = batch(2, length)
    grads, losses = [], []
    for backend in ("naive", "chunk"):
        model = moved()
        hidden = model(items, times_ms, backend=backend)
        total = (hidden * torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view(hidden.shape)).sum()
        total.backward()
        losses.append(total.detach())
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-10, atol=1e-10)
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-8, atol=1e-9)


def test_nothing_looks_ahead_and_padding_changes_nothing() -> None:
    model = moved()
    items, times_ms = batch(2, 30)
    with torch.no_grad():
        hidden = model(items, times_ms)
        items[:, 20:], times_ms[:, 20:] = 0, 0
        other = model(items, times_ms, torch.tensor([20, 11]))
    torch.testing.assert_close(other[:1, :21], hidden[:1, :21], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other[1:, :12], hidden[1:, :12], rtol=1e-10, atol=1e-10)
    assert not other[0, 21:].any()
    assert not other[1, 12:].any()


def packed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Items, times and offsets of sequences of these lengths, one after another."""
    items, times_ms = batch(len(lengths), max(lengths))
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return items[inside], times_ms[inside], F.pad(torch.tensor(lengths).cumsum(0), (1, 0))


@pytest.mark.parametrize("name", ["streaming", "sasrec", "gru4rec"])
def test_packed_rows_equal_each_alone(name: str) -> None:
    config = msgspec.structs.replace(SMALL, name=name)
    model = create_model(config, ITEMS).double().eval()
    items, times_ms, offsets = packed(LENGTHS)
    with torch.no_grad():
        got = model.encode(items, times_ms, offsets)
        want = []
        for begin, end in itertools.pairwise(offsets.tolist()):
            row = slice(begin, max(end, begin + 1))  # not every model reads rows without events
            want.append(model(items[None, row], times_ms[None, row])[0, : end - begin + 1])
    torch.testing.assert_close(got, torch.cat(want), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("time", [True, False])
def test_compiled_model_gives_the_naive_one_with_gradients(layers: int, time: bool) -> None:
    items, times_ms, offsets = packed(LENGTHS)
    truth = moved(msgspec.structs.replace(SMALL, layers=layers, time=time))
    single = copy.deepcopy(truth).float()
    weights = torch.randn(len(items) + len(LENGTHS), SMALL.d_model, dtype=torch.float64)
    results = []
    for model, backend in ((truth, "naive"), (single, "numba")):
        hidden = model.encode(items, times_ms, offsets, backend=backend)
        (hidden * weights).sum().backward()  # type: ignore[no-untyped-call]
        results.append((hidden.detach().double(), {name: p.grad for name, p in model.named_parameters()}))
    (want, want_grads), (got, got_grads) = results
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    for name, grad in want_grads.items():
        other = got_grads[name]
        if grad is None:
            assert other is None
        else:
            assert other is not None
            torch.testing.assert_close(other.double(), grad, rtol=0, atol=1e-4 * grad.abs().max().item(), msg=name)


@pytest.mark.parametrize("backend", ["chunk", "numba"])
def test_what_training_draws_depends_on_the_seed(backend: str) -> None:
    model = moved().float().train()
    cells = packed([30, 20])
    with torch.no_grad():
        first, same, other = (model.encode(*cells, backend=backend, seed=seed) for seed in (1, 1, 2))
        torch.manual_seed(0)
        drawn = model.encode(*cells, backend=backend)
        torch.manual_seed(0)
        again = model.encode(*cells, backend=backend)
    assert torch.equal(first, same)
    assert torch.equal(drawn, again)
    assert not torch.equal(first, other)


def test_fresh_model_starts_without_time() -> None:
    timed = StreamingModel(SMALL, ITEMS).double().eval()
    items, times_ms = batch(2, 20)
    with torch.no_grad():
        hidden = timed(items, times_ms)
        torch.testing.assert_close(hidden, timed(items, times_ms * 1000))
        assert torch.equal(timed.query(hidden[:, :-1], gap_features(times_ms)), hidden[:, :-1])


def test_query_is_a_modulation_by_the_next_gap() -> None:
    model = moved()
    hidden = torch.randn(2, 8, dtype=torch.float64)
    phi = torch.rand(2, 3, dtype=torch.float64)
    assert model.query_time is not None
    gamma, beta = torch.chunk(model.query_time(phi), 2, dim=-1)
    torch.testing.assert_close(model.query(hidden, phi), hidden * (1 + gamma) + beta)
    assert torch.equal(model.query(hidden, None), hidden)
    still = moved(ModelConfig(d_model=8, heads=2, head_dim=6, d_state=4, query_time=False))
    assert torch.equal(still.query(hidden, phi), hidden)


def plain_loss(model: StreamingModel, items: torch.Tensor, times_ms: torch.Tensor) -> torch.Tensor:
    hidden = model.query(model(items, times_ms)[:, :-1], gap_features(times_ms))
    known = torch.where(items < model.items, items, -100)
    return F.cross_entropy((hidden @ model.item_table().T).flatten(0, 1), known.flatten())


def test_training_reads_some_items_as_the_unknown_one() -> None:
    config = ModelConfig(d_model=8, heads=2, head_dim=6, d_state=4, unknown_rate=0.5, dropout=0.0)
    model = StreamingModel(config, ITEMS).train()
    torch.manual_seed(0)
    plain_loss(model, *batch(4, 20)).backward()  # type: ignore[no-untyped-call]
    gradient = model.embedding.grad
    assert gradient is not None
    assert gradient[model.unknown_row].abs().sum() > 0
    assert gradient[model.start_row].abs().sum() > 0


def test_loss_falls_when_trained() -> None:
    torch.manual_seed(0)
    model = StreamingModel(ModelConfig(d_model=8, heads=2, head_dim=4, d_state=4, dropout=0.0), 12).train()
    items = (torch.arange(20) + torch.arange(4)[:, None]) % 12
    times_ms = torch.arange(20).expand(4, 20) * 60_000
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = plain_loss(model, items, times_ms).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = plain_loss(model, items, times_ms)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.3 * first


def test_initial_values_depend_on_the_generator_only() -> None:
    states = [StreamingModel(SMALL, 9).state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = StreamingModel(SMALL, 9, generator=torch.Generator().manual_seed(7)).state_dict()
    assert not torch.equal(states[0]["embedding"], other["embedding"])


def test_grown_vocabulary_keeps_the_old_items() -> None:
    model = moved()
    items, times_ms = batch(2, 10)
    grown = model.grown(ITEMS + 5)
    renamed = torch.where(items == model.unknown_row, grown.unknown_row, items)
    grown.eval()
    with torch.no_grad():
        torch.testing.assert_close(grown(renamed, times_ms), model(items, times_ms))
    assert torch.equal(grown.item_table()[:ITEMS], model.item_table())
    assert grown.item_table().shape[0] == ITEMS + 5
    with pytest.raises(ValueError, match="only grows"):
        model.grown(3)
