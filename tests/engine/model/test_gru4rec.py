import math
from typing import Any

import msgspec
import pytest
import torch
from torch.nn import functional as F

from recurra.engine.config import ModelConfig
from recurra.engine.model import GRU4RecModel

ITEMS = 30
SMALL = ModelConfig(name="gru4rec", d_model=6, layers=2, gru_hidden=5)


def moved(config: ModelConfig = SMALL) -> GRU4RecModel:
    """A model whose parameters have all left their initial values, so that a forgotten one shows."""
    model = GRU4RecModel(config, ITEMS).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.2)
    return model


def rows(b: int, length: int) -> torch.Tensor:
    return torch.randint(ITEMS + 1, (b, length), generator=torch.Generator().manual_seed(4))


def by_hand(model: GRU4RecModel, items: list[int]) -> torch.Tensor:
    """The equations of the module's docstring for one user, event by event."""
    gru: Any = model.gru
    states = [torch.zeros(model.config.gru_hidden, dtype=torch.float64)] * model.config.layers
    users = []
    for item in items:
        v = model.embedding[item]
        for k, s in enumerate(list(states)):
            w_r, w_z, w_n = torch.chunk(getattr(gru, f"weight_ih_l{k}") @ v + getattr(gru, f"bias_ih_l{k}"), 3)
            u_r, u_z, u_n = torch.chunk(getattr(gru, f"weight_hh_l{k}") @ s + getattr(gru, f"bias_hh_l{k}"), 3)
            r, z = torch.sigmoid(w_r + u_r), torch.sigmoid(w_z + u_z)
            v = (1 - z) * torch.tanh(w_n + r * u_n) + z * s
            states[k] = v
        users.append(model.out.weight @ v + model.out.bias)
    return torch.stack(users)


@pytest.mark.parametrize("layers", [1, 2])
def test_forward_is_what_the_equations_say(layers: int) -> None:
    model = moved(msgspec.structs.replace(SMALL, layers=layers))
    items = rows(2, 9)
    with torch.no_grad():
        hidden = model(items, items)
        for row in range(2):
            want = by_hand(model, items[row].tolist())
            torch.testing.assert_close(hidden[row, 1:], want, rtol=1e-9, atol=1e-9)
    assert not hidden[:, 0].any()


def test_nothing_looks_ahead_and_padding_changes_nothing() -> None:
    model = moved()
    items = rows(2, 30)
    with torch.no_grad():
        hidden = model(items, items)
        items[:, 20:] = 0
        other = model(items, items * 1000, torch.tensor([20, 11]))
    torch.testing.assert_close(other[:1, :21], hidden[:1, :21], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other[1:, :12], hidden[1:, :12], rtol=1e-10, atol=1e-10)
    assert not other[0, 21:].any()
    assert not other[1, 12:].any()


def test_gradients_reach_every_parameter_and_row() -> None:
    model = moved().train()
    torch.manual_seed(0)
    items = torch.arange(ITEMS)[None]
    hidden = model(items, items)[:, 1:]
    F.cross_entropy((hidden @ model.item_table().T)[0], items[0].roll(-1)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert model.embedding.grad is not None
    assert bool(model.embedding.grad[:ITEMS].any(dim=1).all())
    # the unknown item was not read
    assert not model.embedding.grad[ITEMS].any()


def test_dropout_falls_on_the_item_vectors() -> None:
    model = moved(msgspec.structs.replace(SMALL, dropout=0.5)).train()
    items = rows(1, 9)
    torch.manual_seed(1)
    hidden = model(items, items)
    torch.manual_seed(1)
    vectors = F.dropout(F.embedding(items, model.embedding), 0.5, True)
    states, _ = model.gru(vectors)
    torch.testing.assert_close(hidden[:, 1:], model.out(states))
    assert (hidden - model.eval()(items, items)).abs().max() > 1e-3


def test_initial_values() -> None:
    model = GRU4RecModel(ModelConfig(name="gru4rec"), 500)
    for parameter in (model.embedding, model.out.weight):
        assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not model.out.bias.any()
    bound = 1 / math.sqrt(128)
    for name, parameter in model.gru.named_parameters():
        assert 0.98 * bound < float(parameter.detach().abs().max()) <= bound, name


def test_number_of_trained_values() -> None:
    # the table of docs/explanation/model.md
    assert GRU4RecModel(ModelConfig(name="gru4rec"), 3_416).parameters_count == 400_512
    assert GRU4RecModel(ModelConfig(name="gru4rec", layers=1), 3_416).parameters_count == 301_440
