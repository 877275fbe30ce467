import pytest
import torch
from torch.nn import functional as F

from recurra.engine.model import loss, next_item_loss


@pytest.mark.parametrize("block_bytes", [1, 1 << 22])
def test_equals_plain_cross_entropy_with_gradients(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(loss, "_BLOCK_BYTES", block_bytes)
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(33, 6, generator=generator, dtype=torch.float64) * 9).requires_grad_()
    table = (torch.randn(19, 6, generator=generator, dtype=torch.float64) * 9).requires_grad_()
    targets = torch.randint(19, (33,), generator=generator)
    got = next_item_loss(hidden, table, targets) * 3
    want = F.cross_entropy(hidden @ table.T, targets) * 3
    torch.testing.assert_close(got, want)
    for mine, plain in zip(
        torch.autograd.grad(got, [hidden, table]), torch.autograd.grad(want, [hidden, table]), strict=True
    ):
        torch.testing.assert_close(mine, plain)


def test_without_targets_it_is_zero_and_differentiable() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    total = next_item_loss(hidden, torch.ones(3, 4), torch.zeros(0, dtype=torch.long))
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() == 0.0
