import math
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recurra.engine.config import ModelConfig
from recurra.engine.model import SASRecModel

ITEMS = 30
SMALL = ModelConfig(name="sasrec", d_model=12, layers=2, attention_heads=3, max_length=40, norm_eps=1e-8)


def moved(config: ModelConfig = SMALL) -> SASRecModel:
    """A model whose parameters have all left their initial values, so that a forgotten one shows."""
    model = SASRecModel(config, ITEMS).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.2)
    return model


def rows(b: int, length: int) -> torch.Tensor:
    return torch.randint(ITEMS + 1, (b, length), generator=torch.Generator().manual_seed(4))


def norm(v: torch.Tensor, module: nn.LayerNorm) -> torch.Tensor:
    scaled: torch.Tensor = (v - v.mean()) / torch.sqrt(((v - v.mean()) ** 2).mean() + module.eps)
    return scaled * module.weight + module.bias


def by_hand(model: SASRecModel, items: list[int]) -> torch.Tensor:
    """The equations of the module's docstring for one user, one position and one head at a time."""
    heads = model.config.attention_heads
    size = model.config.d_model // heads
    a = [norm(model.embedding[item] + model.positions[t], model.norm) for t, item in enumerate(items)]
    for layer in model.layers:
        key_value = [layer.key_value.weight @ v + layer.key_value.bias for v in a]  # type: ignore[union-attr,operator]
        after = []
        for t, vector in enumerate(a):
            query = layer.query.weight @ vector + layer.query.bias  # type: ignore[union-attr,operator]
            mixed = []
            for j in range(heads):
                own = slice(j * size, (j + 1) * size)
                keys = torch.stack([kv[: heads * size][own] for kv in key_value[: t + 1]])
                values = torch.stack([kv[heads * size :][own] for kv in key_value[: t + 1]])
                weights = torch.exp(keys @ query[own] / math.sqrt(size))
                mixed.append((weights / weights.sum()) @ values)
            o = layer.out.weight @ torch.cat(mixed) + layer.out.bias  # type: ignore[union-attr,operator]
            c = norm(o + vector, layer.norm)  # type: ignore[arg-type]
            inner = layer.ffn_in.weight @ c + layer.ffn_in.bias  # type: ignore[union-attr,operator]
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            f = layer.ffn_out.weight @ inner + layer.ffn_out.bias  # type: ignore[union-attr,operator]
            after.append(norm(f + c, layer.ffn_norm))  # type: ignore[arg-type]
        a = after
    return torch.stack(a)


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


@pytest.mark.parametrize("layers", [1, 2])
def test_last_position_alone_is_the_last_of_all(layers: int) -> None:
    model = moved(msgspec.structs.replace(SMALL, layers=layers))
    items = rows(3, 40)
    with torch.no_grad():
        torch.testing.assert_close(model.attend(items, last_only=True), model.attend(items)[:, -1:])


def test_nothing_looks_ahead_and_padding_changes_nothing() -> None:
    model = moved()
    items = rows(2, 30)
    with torch.no_grad():
        hidden = model(items, items)
        items[:, 20:] = 0
        other = model(items, items, torch.tensor([20, 11]))
    torch.testing.assert_close(other[:1, :21], hidden[:1, :21], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other[1:, :12], hidden[1:, :12], rtol=1e-10, atol=1e-10)
    assert not other[0, 21:].any()
    assert not other[1, 12:].any()


def test_order_matters_and_times_do_not() -> None:
    model = moved()
    items = torch.tensor([[1, 2, 3], [2, 1, 3]])
    with torch.no_grad():
        hidden = model(items, items)
        assert torch.equal(hidden, model(items, items * 1000))
    assert (hidden[0, 3] - hidden[1, 3]).abs().max() > 1e-3


def test_gradients_reach_every_parameter_and_row() -> None:
    model = moved().train()
    torch.manual_seed(0)
    items = torch.arange(ITEMS + 1)[None]
    hidden = model(items, items)[:, 1:-1]
    F.cross_entropy((hidden @ model.item_table().T)[0], items[0, :-1]).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    # the unknown item was read, and the places after the row's end were not
    assert model.embedding.grad is not None
    assert model.positions.grad is not None
    assert not model.embedding.grad[ITEMS].any()
    assert not model.positions.grad[ITEMS + 1 :].any()


def test_dropout_falls_where_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    dropout = F.dropout
    attention: Any = F.scaled_dot_product_attention

    def seen_dropout(values: torch.Tensor, p: float) -> torch.Tensor:
        rates.append(p)
        return dropout(values, p)

    def seen_attention(*given: torch.Tensor, **options: Any) -> torch.Tensor:
        rates.append(options["dropout_p"])
        attended: torch.Tensor = attention(*given, **options)
        return attended

    monkeypatch.setattr(F, "dropout", seen_dropout)
    monkeypatch.setattr(F, "scaled_dot_product_attention", seen_attention)
    model = moved(msgspec.structs.replace(SMALL, dropout=0.3)).train()
    items = rows(1, 5)
    model(items, items)
    # the first vectors; per layer: attention, its result, feed-forward's inner and outer result
    assert rates == [0.3] * 9
    rates.clear()
    model.eval()(items, items)
    assert set(rates) == {0.0}


def test_long_rows_are_refused() -> None:
    items = rows(1, 41)
    with pytest.raises(ValueError, match=r"at most model\.max_length = 40 events can be read, got 41"):
        moved()(items, items)


def test_initial_values() -> None:
    model = SASRecModel(ModelConfig(name="sasrec"), 500)
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if "norm" in name:
            assert bool((value == (1 if name.endswith("weight") else 0)).all()), name
        elif name.endswith("bias"):
            assert not value.any(), name
        else:
            assert float(value.std()) == pytest.approx(0.02, rel=0.05), name


def test_number_of_trained_values() -> None:
    # the table of docs/explanation/model.md
    assert SASRecModel(ModelConfig(name="sasrec"), 3_416).parameters_count == 331_584
    assert SASRecModel(ModelConfig(name="sasrec", max_length=50), 12_101).parameters_count == 877_824
