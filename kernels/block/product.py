"""Products with weights that stay: packed once, then rows of events times all columns in the processor's registers.

A library's matrix product packs its weights anew in every call and may hand them to a pool of threads; here a call
costs what its multiply-adds cost, for ten events as for a thousand, and the bias is what the sums begin with.
"""

from typing import Any, NamedTuple

import llvmlite.binding as llvm  # type: ignore[import-untyped]  # no types are published
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..jit import fast_jit

__all__ = ["LANES", "Panels", "aligned", "product"]

# columns of a panel: one vector of AVX-512; processors with shorter vectors take several for it
LANES = 16
# rows and panels whose sums fit into the registers
_ROWS, _PANELS = (12, 2) if llvm.get_host_cpu_features().get("avx512f") else (6, 1)
_FEW_ROWS = 4


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
    # out[t : t + rows, panel * 16 : ...] <- bias + a[t : t + rows] weight, the sums in registers
    vector = ir.VectorType(ir.FloatType(), LANES)
    word = ir.IntType(64)

    @intrinsic
    def tile(_typing: Any, a: Any, _t: Any, weight: Any, bias: Any, _panel: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def start(place: int, *index: Any) -> Any:
                # the address of an element of an argument, counted in the leading dimensions
                view = context.make_array(signature.args[place])(context, builder, args[place])
                shape = [builder.extract_value(view.shape, i) for i in range(signature.args[place].ndim)]
                flat = word(0)
                for i, size in enumerate(shape):
                    flat = builder.mul(flat, size)
                    if i < len(index):
                        flat = builder.add(flat, index[i])
                return builder.gep(view.data, [flat]), shape

            def wide(pointer: Any) -> Any:
                return builder.bitcast(pointer, ir.PointerType(vector))

            t, panel = args[1], args[4]
            columns = builder.mul(panel, word(LANES))
            source, (_, inner) = start(0, t)
            first, _ = start(2, panel)
            target, (_, size) = start(5, t, columns)
            begin, _ = start(3, columns)
            weights = [builder.gep(first, [builder.mul(inner, word(LANES * v))]) for v in range(panels)]
            biases = [builder.load(wide(builder.gep(begin, [word(LANES * v)])), align=4) for v in range(panels)]
            sources = [builder.gep(source, [builder.mul(inner, word(r))]) for r in range(rows)]
            before = builder.block
            body = builder.append_basic_block("product")
            after = builder.append_basic_block("product.end")
            builder.branch(body)
            builder.position_at_end(body)
            i = builder.phi(word)
            i.add_incoming(word(0), before)
            sums = [[builder.phi(vector) for _ in range(panels)] for _ in range(rows)]
            at = builder.mul(i, word(LANES))
            loaded = [builder.load(wide(builder.gep(pointer, [at])), align=4 * LANES) for pointer in weights]
            for r in range(rows):
                value = builder.load(builder.gep(sources[r], [i]))
                spread = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                spread = builder.shuffle_vector(spread, ir.Constant(vector, ir.Undefined), zeros)
                for v in range(panels):
                    phi = sums[r][v]
                    phi.add_incoming(biases[v], before)
                    scaled = builder.fmul(spread, loaded[v], flags=("contract",))
                    phi.add_incoming(builder.fadd(phi, scaled, flags=("contract",)), body)
            following = builder.add(i, word(1))
            i.add_incoming(following, body)
            builder.cbranch(builder.icmp_unsigned("<", following, inner), body, after)
            builder.position_at_end(after)
            for r in range(rows):
                row = builder.gep(target, [builder.mul(size, word(r))])
                for v in range(panels):
                    total = sums[r][v].incomings[1][0]
                    builder.store(total, wide(builder.gep(row, [word(LANES * v)])), align=4)
            return context.get_dummy_value()

        return types.void(a, types.intp, weight, bias, types.intp, out), generate

    return tile


# numba fills in the first argument of an intrinsic, which its types do not say
_many: Any = _tile(_ROWS, _PANELS)
_many_last: Any = _tile(_ROWS, 1)
_few: Any = _tile(_FEW_ROWS, _PANELS)
_few_last: Any = _tile(_FEW_ROWS, 1)
_one: Any = _tile(1, _PANELS)
_one_last: Any = _tile(1, 1)


@fast_jit
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
    while t < events:
        for panel in range(first, paired, _PANELS):
            _one(a, t, weight, bias, panel, out)
        for panel in range(paired, end):
            _one_last(a, t, weight, bias, panel, out)
        t += 1
