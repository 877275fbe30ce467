"""Products with weights that stay: packed once, then rows of events times all columns in the processor's registers.

A library's matrix product packs its weights again in every call and may hand them to a pool of threads; here a call
costs what its multiply-adds cost, for ten events as for a thousand, and the bias is what the sums begin with.
"""

from typing import Any, NamedTuple

import llvmlite.binding as llvm  # type: ignore[import-untyped]  # no types are published
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..jit import inline_jit

__all__ = ["LANES", "Panels", "aligned", "product"]

# columns of a panel: one vector of AVX-512; processors with shorter vectors take several for it
LANES = 16
# rows and panels whose sums fit into the registers
_ROWS, _PANELS = (12, 2) if llvm.get_host_cpu_features().get("avx512f") else (6, 1)
_FEW_ROWS = 4
# a single row has so few sums that each would wait for the one before
_ONE_PANELS = 4
_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_NOTHING = ir.Constant(_VECTOR, ir.Undefined)


class Panels(NamedTuple):
    """A linear map per layer: columns in panels of 16, zeros behind the last column."""

    weight: NDArray[np.float32]  # (k, panels, inputs, 16)
    bias: NDArray[np.float32]  # (k, panels * 16)

    @classmethod
    def of(cls, weight: NDArray[np.float32], bias: NDArray[np.float32], inputs: int | None = None) -> "Panels":
        """Lay out ``weight`` (k, i, o) and ``bias`` (k, o) for rows of ``inputs`` values; None means i."""
        k, i, o = weight.shape
        inputs, panels = inputs or i, -(-o // LANES)
        wide = np.zeros((k, inputs, panels * LANES), np.float32)
        wide[:, :i, :o] = weight
        packed = aligned((k, panels, inputs, LANES))
        packed[:] = wide.reshape(k, inputs, panels, LANES).transpose(0, 2, 1, 3)
        wide_bias = aligned((k, panels * LANES))
        wide_bias[:, :o] = bias
        return cls(packed, wide_bias)

    @property
    def outputs(self) -> int:
        """Columns of a result."""
        return int(self.bias.shape[1])


def aligned(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """Zeros that begin at a page: a vector across two cache lines costs twice, and numpy aligns to 16 bytes only."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 4096, np.uint8)
    begin = -memory.ctypes.data % 4096
    array: NDArray[Any] = memory[begin : begin + size].view(dtype).reshape(shape)
    return array


def _tile(rows: int, panels: int) -> Any:
    # tile(a, t, weight, bias, panel, out): out[t : t + rows, 16 panel : ...] <- bias + a[t : t + rows] weight

    @intrinsic
    def tile(_typing: Any, a: Any, _t: Any, weight: Any, bias: Any, _panel: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def at(place: int, *index: Any) -> tuple[Any, Any]:
                view = context.make_array(signature.args[place])(context, builder, args[place])
                return _address(builder, view, signature.args[place].ndim, index)

            t, panel = args[1], args[4]
            columns = builder.mul(panel, _WORD(LANES))
            source, inner = at(0, t)
            first, _ = at(2, panel)
            begin, _ = at(3, columns)
            target, size = at(5, t, columns)
            step = builder.mul(inner, _WORD(LANES))
            _sums(
                builder,
                inner,
                [_moved(builder, source, inner, r) for r in range(rows)],
                [_moved(builder, first, step, v) for v in range(panels)],
                [_moved(builder, begin, _WORD(LANES), v) for v in range(panels)],
                [
                    [_moved(builder, _moved(builder, target, size, r), _WORD(LANES), v) for v in range(panels)]
                    for r in range(rows)
                ],
            )
            return context.get_dummy_value()

        return types.void(a, types.intp, weight, bias, types.intp, out), generate

    return tile


def _address(builder: Any, view: Any, dimensions: int, index: tuple[Any, ...]) -> tuple[Any, Any]:
    # address of the element at the leading indices of a C-contiguous array, and the array's last size
    shape = [builder.extract_value(view.shape, i) for i in range(dimensions)]
    flat = _WORD(0)
    for i, size in enumerate(shape):
        flat = builder.mul(flat, size)
        if i < len(index):
            flat = builder.add(flat, index[i])
    return builder.gep(view.data, [flat]), shape[-1]


def _moved(builder: Any, pointer: Any, step: Any, count: int) -> Any:
    return builder.gep(pointer, [builder.mul(step, _WORD(count))])


def _sums(
    builder: Any, inner: Any, sources: list[Any], weights: list[Any], biases: list[Any], targets: list[list[Any]]
) -> None:
    # the loop over the inner dimension: one vector of sums per row and panel, in registers from bias to store
    def wide(pointer: Any) -> Any:
        return builder.bitcast(pointer, ir.PointerType(_VECTOR))

    starts = [builder.load(wide(pointer), align=4) for pointer in biases]
    before = builder.block
    body = builder.append_basic_block("product")
    after = builder.append_basic_block("product.end")
    builder.branch(body)
    builder.position_at_end(body)
    i = builder.phi(_WORD)
    sums = [[builder.phi(_VECTOR) for _ in weights] for _ in sources]
    place = builder.mul(i, _WORD(LANES))
    loaded = [builder.load(wide(builder.gep(pointer, [place])), align=4 * LANES) for pointer in weights]
    totals = []
    for source, row in zip(sources, sums, strict=True):
        value = builder.insert_element(_NOTHING, builder.load(builder.gep(source, [i])), ir.IntType(32)(0))
        spread = builder.shuffle_vector(value, _NOTHING, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))
        # a multiplication and an addition that may become one instruction
        scaled = [builder.fmul(spread, part, flags=("contract",)) for part in loaded]
        totals.append([builder.fadd(old, part, flags=("contract",)) for old, part in zip(row, scaled, strict=True)])
    following = builder.add(i, _WORD(1))
    i.add_incoming(_WORD(0), before)
    i.add_incoming(following, body)
    for row, new in zip(sums, totals, strict=True):
        for phi, start, total in zip(row, starts, new, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(total, body)
    builder.cbranch(builder.icmp_unsigned("<", following, inner), body, after)
    builder.position_at_end(after)
    for pointers, new in zip(targets, totals, strict=True):
        for pointer, total in zip(pointers, new, strict=True):
            builder.store(total, wide(pointer), align=4)


# numba fills in the first argument of an intrinsic, which its types do not say
_many: Any = _tile(_ROWS, _PANELS)
_many_last: Any = _tile(_ROWS, 1)
_few: Any = _tile(_FEW_ROWS, _PANELS)
_few_last: Any = _tile(_FEW_ROWS, 1)
_one: Any = _tile(1, _ONE_PANELS)
_one_last: Any = _tile(1, 1)


@inline_jit
def product(a: Any, weight: Any, bias: Any, first: int, end: int, out: Any) -> None:
    """``out`` <- ``bias`` + ``a`` (T, i) ``weight``, panels ``first`` to ``end`` only; arrays as in ``Panels``."""
    events = a.shape[0]
    paired = end - (end - first) % _PANELS
    t = 0
    while t + _ROWS <= events:
        for panel in range(first, paired, _PANELS):
            _many(a, t, weight, bias, panel, out)
        for panel in range(paired, end):
            _many_last(a, t, weight, bias, panel, out)
        t += _ROWS
    while t + _FEW_ROWS <= events:
        for panel in range(first, paired, _PANELS):
            _few(a, t, weight, bias, panel, out)
        for panel in range(paired, end):
            _few_last(a, t, weight, bias, panel, out)
        t += _FEW_ROWS
    paired = end - (end - first) % _ONE_PANELS
    while t < events:
        for panel in range(first, paired, _ONE_PANELS):
            _one(a, t, weight, bias, panel, out)
        for panel in range(paired, end):
            _one_last(a, t, weight, bias, panel, out)
        t += 1
