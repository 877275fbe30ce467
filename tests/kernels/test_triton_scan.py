"""The Triton scan against the naive loop in float64: on a GPU where there is one, else in Triton's interpreter."""

from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import functional as F

from recurra.kernels import ssd

pytest.importorskip("triton", reason="the optional extra gpu is not installed")

from recurra.kernels.ssd.triton import Launch, ssd_triton

pytestmark = pytest.mark.gpu
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
# the interpreter multiplies the bits of bfloat16 numbers as if they were integers
HALF = torch.bfloat16 if GPU else torch.float16
# relative to the norm; dA is a small sum of large terms of both signs
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}


class Case(NamedTuple):
    """Inputs in float64 whose values the tested dtype can hold."""

    tensors: dict[str, torch.Tensor]
    lengths: torch.Tensor | None
    cu_seqlens: torch.Tensor | None
    slope_y: torch.Tensor
    slope_final: torch.Tensor


def make(
    b: int, length: int, h: int, p: int, n: int, dtype: torch.dtype, *,
    start: bool = False, lengths: list[int] | None = None, packed: list[int] | None = None, decay: float = 4.0,
) -> Case:  # fmt: skip
    rng = torch.Generator().manual_seed(length + 1000 * p + n)

    def draw(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(*shape, generator=rng).to(kind).double()

    sequences = b if packed is None else len(packed)
    cu = None if packed is None else torch.tensor([0, *packed]).cumsum(0)
    tensors = {
        "x": draw(b, length, h, p),
        "dt": F.softplus(draw(b, length, h)).float().double(),
        "A": -(decay * torch.rand(h, generator=rng) + 0.1).double(),
        "B": draw(b, length, n),
        "C": draw(b, length, n),
        "D": draw(h),
    }
    if start:
        tensors["initial_state"] = draw(sequences, h, p, n, kind=torch.float32)
    return Case(
        tensors,
        None if lengths is None else torch.tensor(lengths),
        cu,
        draw(b, length, h, p),
        draw(sequences, h, p, n, kind=torch.float32),
    )


def outcome(case: Case, dtype: torch.dtype | None, **options: Any) -> dict[str, torch.Tensor]:
    """Outputs and gradients; dtype None is the truth."""
    wide = {"dt", "A", "D", "initial_state"}
    given: Any = {
        name: (v.clone() if dtype is None else v.to(DEVICE, torch.float32 if name in wide else dtype)).requires_grad_()
        for name, v in case.tensors.items()
    }
    if dtype is None:
        y, final = ssd(**given, lengths=case.lengths, cu_seqlens=case.cu_seqlens, backend="naive")
    else:
        y, final = ssd_triton(**given, lengths=case.lengths, cu_seqlens=case.cu_seqlens, **options)
    slopes = (case.slope_y.to(y), case.slope_final.to(final))
    gradients = torch.autograd.grad((y, final), list(given.values()), slopes)
    return {"y": y.detach(), "final": final.detach()} | {
        f"d{name}": g for name, g in zip(given, gradients, strict=True)
    }


def check(case: Case, dtype: torch.dtype, **options: Any) -> None:
    truth, out = outcome(case, None), outcome(case, dtype, **options)
    assert truth.keys() == out.keys()
    for name, want in truth.items():
        got = out[name].cpu().double()
        # NaN in `got` makes the comparison false
        error = float((got - want).norm())
        allowed = TOLERANCE[dtype] * (10 if name == "dA" else 1)
        assert error <= allowed * (float(want.norm()) + 1.0), f"{name}: {error:.1e} of {float(want.norm()):.1e}"


@pytest.fixture(autouse=True)
def nan_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel forgets to write, or reads too early, shows up as NaN."""
    empty = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.mark.parametrize(
    ("length", "start"),
    [(1, False), (1, True), (2, True), (63, True), (64, True), (65, False), (65, True), (200, True)],
)
def test_lengths(length: int, start: bool) -> None:
    # with 200 positions more sequences would only repeat the slow interpreter
    check(make(2 if length < 200 else 1, length, 2, 16, 16, torch.float32, start=start), torch.float32)


@pytest.mark.parametrize("launch", [Launch(16, 1, 1), Launch(32, 2, 2), Launch(128, 4, 1)])
def test_every_chunk_length_is_the_same_scan(launch: Launch) -> None:
    check(make(1, 65, 2, 16, 16, torch.float32, start=True), torch.float32, launch=(launch, launch))


def test_sizes_that_do_not_fill_a_tile() -> None:
    check(make(2, 40, 3, 8, 24, torch.float32, start=True), torch.float32)


def test_padded_rows() -> None:
    case = make(4, 40, 2, 16, 16, torch.float32, start=True, lengths=[40, 1, 0, 33])
    check(case, torch.float32)


def test_padding_may_hold_anything() -> None:
    case = make(2, 40, 2, 16, 16, torch.float32, lengths=[40, 17])
    clean = outcome(case, torch.float32)
    for name in ("x", "dt", "B", "C"):
        case.tensors[name][1, 17:] = float("nan")
    case.slope_y[1, 17:] = float("nan")
    dirty = outcome(case, torch.float32)
    for name, want in clean.items():
        torch.testing.assert_close(dirty[name], want, rtol=0, atol=0)


@pytest.mark.parametrize("start", [False, True])
def test_packed_rows(start: bool) -> None:
    check(make(1, 71, 2, 16, 16, torch.float32, start=start, packed=[5, 0, 32, 1, 33]), torch.float32)


def test_half_precision() -> None:
    check(make(1, 65, 2, 16, 16, HALF, start=True), HALF)


def test_strong_decay_neither_overflows_nor_loses_precision() -> None:
    check(make(1, 100, 2, 16, 16, torch.float32, start=True, decay=60.0), torch.float32)


def test_strided_inputs_as_a_split_projection_gives_them() -> None:
    wide = torch.randn(2, 33, 2 * 16 + 16 + 16, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    x, B, C = torch.split(wide, [32, 16, 16], dim=-1)
    x = x.view(2, 33, 2, 16)
    dt = torch.rand(2, 33, 4, device=DEVICE)[..., ::2]
    A = -torch.ones(2, device=DEVICE)
    strided = ssd_triton(x, dt, A, B, C)
    packed = ssd_triton(*(v.contiguous() for v in (x, dt, A, B, C)))
    for got, want in zip(strided, packed, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_the_final_state_has_the_dtype_of_the_initial_one() -> None:
    case = make(1, 5, 2, 16, 16, torch.float32)
    given: Any = {name: v.to(DEVICE, torch.float32) for name, v in case.tensors.items()}
    start = torch.zeros(1, 2, 16, 16, device=DEVICE)
    assert ssd_triton(**given)[1].dtype == torch.float32
    assert ssd_triton(**given, initial_state=start.half())[1].dtype == torch.float16


def test_launches_of_different_chunks_are_refused() -> None:
    given: Any = {name: v.to(DEVICE, torch.float32) for name, v in make(1, 5, 2, 16, 16, torch.float32).tensors.items()}
    with pytest.raises(ValueError, match="one chunk length"):
        ssd_triton(**given, launch=(Launch(16, 1, 1), Launch(32, 1, 1)))


def test_dispatch_reaches_the_kernel() -> None:
    case = make(1, 20, 2, 16, 16, torch.float32, start=True)
    given: Any = {name: v.to(DEVICE, torch.float32) for name, v in case.tensors.items()}
    for got, want in zip(ssd(**given, backend="triton"), ssd_triton(**given), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_other_dtypes_are_refused_with_what_to_do() -> None:
    given: Any = {name: v.to(DEVICE) for name, v in make(1, 5, 2, 16, 16, torch.float32).tensors.items()}
    with pytest.raises(ValueError, match="use backend 'chunk'"):
        ssd_triton(**given)


@pytest.mark.skipif(not GPU, reason="long shapes are for a GPU; the interpreter is too slow")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200, 1000])
def test_full_shapes(length: int, dtype: torch.dtype) -> None:
    check(make(3, length, 4, 32, 32, dtype, start=True), dtype)
