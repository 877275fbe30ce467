"""The loss by blocks equals the definition: value and all gradients, for every backend and precision."""

import pytest
import torch

from recurra.kernels.cross_entropy import Weighted, chunk, cross_entropy

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Weighted, torch.Tensor]


def case(positions: int, negatives: int, *, width: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32) -> Case:
    draw = torch.Generator().manual_seed(seed)
    hidden, true, table = (
        torch.randn(size, width, generator=draw, dtype=dtype) for size in (positions, positions, negatives)
    )
    bias = torch.randn(negatives, generator=draw, dtype=dtype)
    pairs = (torch.rand(positions, negatives, generator=draw) < 0.2).nonzero()
    log_weights = torch.randn(len(pairs), generator=draw)
    log_weights[torch.rand(len(pairs), generator=draw) < 0.5] = -torch.inf
    return hidden, true, table, Weighted(pairs[:, 0], pairs[:, 1], log_weights), bias


def solved(made: Case, *, biased: bool = True, backend: str = "auto", precision: str = "float32") -> list[torch.Tensor]:
    hidden, true, table, weighted, bias = made
    leaves = h, t, r = hidden.clone(), true.clone(), table.clone()
    for leaf in leaves:
        leaf.requires_grad_()
    loss = cross_entropy(h, t, r, weighted, bias=bias if biased else None, backend=backend, precision=precision)
    (3 * loss).backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def close(got: list[torch.Tensor], want: list[torch.Tensor], tolerance: float) -> None:
    assert len(got) == len(want) == 4
    for one, other in zip(got, want, strict=True):
        assert torch.isfinite(one).all()
        scale = other.double().abs().max().clamp_min(1e-6)
        assert (one.double() - other.double()).abs().max() / scale <= tolerance


@pytest.mark.parametrize("backend", ["chunk", "numba", "auto"])
@pytest.mark.parametrize("positions", [1, 2, 63, 200])
@pytest.mark.parametrize("negatives", [1, 17, 300])
@pytest.mark.parametrize("biased", [True, False])
def test_float32_equals_the_definition_in_double(backend: str, positions: int, negatives: int, biased: bool) -> None:
    made = case(positions, negatives)
    double = case(positions, negatives)
    truth = (*(part.double() for part in double[:3]), double[3], double[4].double())
    want = solved(truth, biased=biased, backend="naive")  # type: ignore[arg-type]
    close(solved(made, biased=biased, backend=backend), want, 2e-5)


def test_double_by_blocks_equals_the_definition() -> None:
    made = case(200, 300, dtype=torch.float64)
    close(solved(made, backend="chunk"), solved(made, backend="naive"), 1e-12)


@pytest.mark.parametrize("backend", ["chunk", "numba"])
def test_bfloat16_products(backend: str) -> None:
    made = case(200, 300)
    close(solved(made, backend=backend, precision="bfloat16"), solved(made, backend="naive"), 3e-2)


def test_more_positions_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "_BLOCK_BYTES", {"cpu": 1})
    made = case(200, 300)
    for backend in ("chunk", "numba"):
        close(solved(made, backend=backend), solved(made, backend="naive"), 2e-5)


@pytest.mark.parametrize("backend", ["naive", "chunk", "numba"])
def test_no_rival_with_a_weight_leaves_nothing_to_learn(backend: str) -> None:
    hidden, true, table, _, bias = case(3, 5)
    everything = torch.ones(3, 5).nonzero()
    got = solved(
        (hidden, true, table, Weighted(everything[:, 0], everything[:, 1], torch.full((15,), -torch.inf)), bias),
        backend=backend,
    )
    assert all(float(part.abs().max()) < 1e-6 for part in got)


@pytest.mark.parametrize("backend", ["naive", "chunk", "numba"])
def test_large_logits_do_not_overflow(backend: str) -> None:
    hidden, true, table, weighted, bias = case(4, 50)
    got = solved((hidden * 100, true, table, weighted, bias), backend=backend)
    close(got, solved((hidden * 100, true, table, weighted, bias), backend="naive"), 1e-4)


@pytest.mark.parametrize("backend", ["naive", "chunk", "numba"])
def test_no_positions(backend: str) -> None:
    hidden, true, table, _, bias = case(1, 5)
    none = torch.empty(0, dtype=torch.int64)
    nothing = Weighted(none, none, torch.empty(0))
    got = solved((hidden[:0], true[:0], table, nothing, bias), backend=backend)
    assert float(got[0]) == 0.0
    assert not got[3].any()


def test_what_does_not_fit_is_refused() -> None:
    hidden, true, table, weighted, bias = case(4, 5)
    with pytest.raises(ValueError, match="hidden and true"):
        cross_entropy(hidden, true[:3], table, weighted)
    with pytest.raises(ValueError, match="bias"):
        cross_entropy(hidden, true, table, weighted, bias=bias[:2])
    with pytest.raises(ValueError, match="backend"):
        cross_entropy(hidden, true, table, weighted, backend="fast")
    with pytest.raises(ValueError, match="precision"):
        cross_entropy(hidden, true, table, weighted, precision="int8")
    with pytest.raises(ValueError, match="float32 on the CPU"):
        cross_entropy(hidden.double(), true.double(), table.double(), weighted, backend="numba")
