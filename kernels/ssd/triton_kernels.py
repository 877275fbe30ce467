"""Device code of the scan: one program walks one sequence chunk by chunk, so a state never leaves the program.

With c_i the log of the decay since the chunk's beginning (inclusive), a = dt A, G = C B^T and L_ij = exp(c_i - c_j) for
j <= i, a chunk that begins with the state S gives (arXiv 2405.21060, section 6; S here as (n, p))

    y = (L * G * dt_j) x + exp(c) C S                S' = exp(c_Q) S + B^T (exp(c_Q - c) dt x)

and, from the gradients dy and dS' and with R = L * (dy x^T),

    dx = (L * G * dt_j)^T dy + dt exp(c_Q - c) B dS'         dS = exp(c_Q) dS' + (exp(c) C)^T dy
    dC = (sum_h R dt_j) B + sum_h exp(c) dy S^T              dB = (sum_h R dt_j)^T C + sum_h exp(c_Q - c) dt x dS'^T

The decays' gradient uses that c_i enters row i of y with weight +1 and what position i adds with weight -1: row sums
less column sums of R * G * dt, and of the terms with a state. These differences stay inside one chunk, so nothing large
cancels over a long sequence. All sums and states are float32; operands of products have the dtype of the input.

Letters as in ``ssd``; capital Q, P, N are the sizes of a tile (powers of two, at least 16).
"""

# what triton compiles has its own types, and triton publishes none
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
from triton import language as tl

__all__ = ["scan_backward", "scan_forward"]

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _extent(sequence, row_len, cu, lengths, Q: tl.constexpr, PACKED: tl.constexpr, PADDED: tl.constexpr):
    # row of the batch, first position, positions to write, positions that count, first chunk of the sequence
    if PACKED:
        begin = tl.load(cu + sequence).to(tl.int64)
        room = (tl.load(cu + sequence + 1) - begin).to(tl.int32)
        # room for every started chunk of the sequences before: no two sequences share one
        first = begin // Q + sequence
        return sequence * 0, begin, room, room, first
    begin = sequence * 0
    first = sequence * tl.cdiv(row_len, Q)
    length = row_len
    if PADDED:
        length = tl.load(lengths + sequence).to(tl.int32)
    return sequence, begin, row_len, length, first


@triton.jit
def _decays(dt, a, Q: tl.constexpr):
    # (log2 of the decay since the beginning, that of the whole chunk, L)
    step = dt * (a * _LOG2E)
    total = tl.sum(step, 0)
    c = tl.cumsum(step, 0)
    i = tl.arange(0, Q)
    L = tl.exp2(tl.where(i[:, None] >= i[None, :], c[:, None] - c[None, :], float("-inf")))
    return c, total, L


@triton.jit
def scan_forward(
    x, dt, A, B, C, D, start, cu, lengths, y, final, saved,
    row_len,
    x_b, x_l, x_h, dt_b, dt_l, dt_h, B_b, B_l, C_b, C_l,
    HAS_D: tl.constexpr, HAS_START: tl.constexpr, PACKED: tl.constexpr, PADDED: tl.constexpr, SAVE: tl.constexpr,
    heads: tl.constexpr, p: tl.constexpr, n: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One sequence and head: ``y``, ``final`` and, with SAVE, the state before every chunk but the first (n, p)."""
    sequence = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    row, begin, room, length, first = _extent(sequence, row_len, cu, lengths, Q, PACKED, PADDED)
    x += row * x_b + begin * x_l + head * x_h
    dt += row * dt_b + begin * dt_l + head * dt_h
    B += row * B_b + begin * B_l
    C += row * C_b + begin * C_l
    y += ((row * row_len + begin) * heads + head) * p
    saved += (first * heads + head) * (n * p)
    i = tl.arange(0, Q)
    ip = tl.arange(0, P)
    jn = tl.arange(0, N)
    whole = (jn[:, None] < n) & (ip[None, :] < p)
    outer = (sequence * heads + head) * (p * n) + ip[None, :] * n + jn[:, None]
    S = tl.zeros((N, P), tl.float32)
    if HAS_START:
        S += tl.load(start + outer, mask=whole, other=0.0).to(tl.float32)
    a = tl.load(A + head).to(tl.float32)
    if HAS_D:
        skip = tl.load(D + head).to(tl.float32)
    for k in tl.range(0, tl.cdiv(room, Q), num_stages=STAGES):
        t = k * Q + i
        valid = t < length
        step = tl.load(dt + t * dt_l, mask=valid, other=0.0).to(tl.float32)
        xs = tl.load(x + t[:, None] * x_l + ip[None, :], mask=valid[:, None] & (ip[None, :] < p), other=0.0)
        Bs = tl.load(B + t[:, None] * B_l + jn[None, :], mask=valid[:, None] & (jn[None, :] < n), other=0.0)
        Cs = tl.load(C + t[:, None] * C_l + jn[None, :], mask=valid[:, None] & (jn[None, :] < n), other=0.0)
        c, total, L = _decays(step, a, Q)
        G = tl.dot(Cs, tl.trans(Bs), input_precision=PRECISION)
        M = (L * G * step[None, :]).to(xs.dtype)
        out = tl.dot(Cs, S.to(xs.dtype), input_precision=PRECISION) * tl.exp2(c)[:, None]
        out = tl.dot(M, xs, out, input_precision=PRECISION)
        if HAS_D:
            out += skip * xs.to(tl.float32)
        tl.store(
            y + t[:, None] * (heads * p) + ip[None, :], out.to(xs.dtype), mask=(t < room)[:, None] & (ip[None, :] < p)
        )
        added = (Bs.to(tl.float32) * (tl.exp2(total - c) * step)[:, None]).to(xs.dtype)
        S = tl.dot(tl.trans(added), xs, S * tl.exp2(total), input_precision=PRECISION)
        if SAVE:
            # nothing comes after the last chunk
            rows = tl.where(room > k * Q + Q, n, 0)
            tl.store(
                saved + k * (heads * n * p) + jn[:, None] * p + ip[None, :],
                S.to(xs.dtype),
                mask=(jn[:, None] < rows) & (ip[None, :] < p),
            )
    tl.store(final + outer, S.to(final.dtype.element_ty), mask=whole)


@triton.jit
def scan_backward(
    x, dt, A, B, C, D, start, cu, lengths, saved, dy, dfinal,
    dx, ddt, dA, dB, dC, dD, dS,
    row_len,
    x_b, x_l, x_h, dt_b, dt_l, dt_h, B_b, B_l, C_b, C_l,
    HAS_D: tl.constexpr, HAS_START: tl.constexpr, HAS_DFINAL: tl.constexpr,
    PACKED: tl.constexpr, PADDED: tl.constexpr,
    heads: tl.constexpr, p: tl.constexpr, n: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One sequence, its chunks from the last to the first, all heads: B and C are read once, dB and dC summed here.

    ``dS`` (sequences, h, n, p) float32 holds the gradient of the state between chunks and at the end that of ``start``.
    ``dA`` and ``dD`` (chunks, h) get one partial sum per chunk, in float32.
    """
    sequence = tl.program_id(0).to(tl.int64)
    row, begin, room, length, first = _extent(sequence, row_len, cu, lengths, Q, PACKED, PADDED)
    origin = row * row_len + begin
    x += row * x_b + begin * x_l
    dt += row * dt_b + begin * dt_l
    B += row * B_b + begin * B_l
    C += row * C_b + begin * C_l
    dy += origin * (heads * p)
    dx += origin * (heads * p)
    ddt += origin * heads
    dB += origin * n
    dC += origin * n
    saved += first * heads * (n * p)
    dA += first * heads
    dD += first * heads
    state_of = sequence * heads * (n * p)
    start += state_of
    dfinal += state_of
    dS += state_of
    i = tl.arange(0, Q)
    ip = tl.arange(0, P)
    jn = tl.arange(0, N)
    whole = (jn[:, None] < n) & (ip[None, :] < p)
    inner = jn[:, None] * p + ip[None, :]
    outer = ip[None, :] * n + jn[:, None]
    for head in tl.range(0, heads, num_stages=1):
        slope = tl.zeros((N, P), tl.float32)
        if HAS_DFINAL:
            slope += tl.load(dfinal + head * (n * p) + outer, mask=whole, other=0.0).to(tl.float32)
        tl.store(dS + head * (n * p) + inner, slope, mask=whole)
    # what one thread wrote, another may read
    tl.debug_barrier()
    chunks = tl.cdiv(room, Q)
    for back in tl.range(0, chunks, num_stages=1):
        k = chunks - 1 - back
        t = k * Q + i
        valid = t < length
        in_x = valid[:, None] & (ip[None, :] < p)
        in_B = valid[:, None] & (jn[None, :] < n)
        Bs = tl.load(B + t[:, None] * B_l + jn[None, :], mask=in_B, other=0.0)
        Cs = tl.load(C + t[:, None] * C_l + jn[None, :], mask=in_B, other=0.0)
        G = tl.dot(Cs, tl.trans(Bs), input_precision=PRECISION)
        dG = tl.zeros((Q, Q), tl.float32)
        dBs = tl.zeros((Q, N), tl.float32)
        dCs = tl.zeros((Q, N), tl.float32)
        # the state before the first chunk is the sequence's start, the others were saved
        after = (jn[:, None] < tl.where(k > 0, n, 0)) & (ip[None, :] < p)
        at_start = (jn[:, None] < tl.where(k > 0, 0, n)) & (ip[None, :] < p)
        for head in tl.range(0, heads, num_stages=STAGES):
            a = tl.load(A + head).to(tl.float32)
            step = tl.load(dt + t * dt_l + head * dt_h, mask=valid, other=0.0).to(tl.float32)
            xs = tl.load(x + t[:, None] * x_l + head * x_h + ip[None, :], mask=in_x, other=0.0)
            dys = tl.load(dy + (t[:, None] * heads + head) * p + ip[None, :], mask=in_x, other=0.0)
            S = tl.load(saved + ((k - 1) * heads + head) * (n * p) + inner, mask=after, other=0.0)
            if HAS_START:
                S += tl.load(start + head * (n * p) + outer, mask=at_start, other=0.0).to(S.dtype)
            slope = tl.load(dS + head * (n * p) + inner, mask=whole, other=0.0)
            c, total, L = _decays(step, a, Q)
            grow = tl.exp2(c)
            left = tl.exp2(total - c)
            keep = tl.exp2(total)
            # inside the chunk
            R = tl.dot(dys, tl.trans(xs), input_precision=PRECISION) * L
            dG += R * step[None, :]
            RG = R * G
            columns = tl.sum(RG, 0)
            M = (L * G * step[None, :]).to(xs.dtype)
            # with the states at both ends
            low = slope.to(xs.dtype)
            through = tl.dot(Bs, low, input_precision=PRECISION) * left[:, None]
            dxs = tl.dot(tl.trans(M), dys, through * step[:, None], input_precision=PRECISION)
            columns += tl.sum(through * xs.to(tl.float32), 1)
            read = tl.dot(dys, tl.trans(S), input_precision=PRECISION) * grow[:, None]
            dCs += read
            dBs += tl.dot(xs, tl.trans(low), input_precision=PRECISION) * (left * step)[:, None]
            rows = tl.sum(RG * step[None, :], 1) + tl.sum(read * Cs.to(tl.float32), 1)
            last = keep * tl.sum(tl.sum(slope * S.to(tl.float32), 1), 0)
            last += tl.sum(step * tl.sum(through * xs.to(tl.float32), 1), 0)
            # a step decays everything from its own position on
            da = tl.cumsum(rows - step * columns, 0, reverse=True) + last
            tl.store(
                ddt + t * heads + head, tl.where(valid, columns + a * da, 0.0).to(ddt.dtype.element_ty), mask=t < room
            )
            tl.store(dA + k * heads + head, tl.sum(step * da, 0))
            if HAS_D:
                both = dys.to(tl.float32)
                dxs += tl.load(D + head).to(tl.float32) * both
                tl.store(dD + k * heads + head, tl.sum(tl.sum(both * xs.to(tl.float32), 1), 0))
            tl.store(
                dx + (t[:, None] * heads + head) * p + ip[None, :],
                dxs.to(xs.dtype),
                mask=(t < room)[:, None] & (ip[None, :] < p),
            )
            weighted = (Cs.to(tl.float32) * grow[:, None]).to(xs.dtype)
            slope = tl.dot(tl.trans(weighted), dys, slope * keep, input_precision=PRECISION)
            tl.store(dS + head * (n * p) + inner, slope, mask=whole)
        pair = dG.to(Bs.dtype)
        dCs = tl.dot(pair, Bs, dCs, input_precision=PRECISION)
        dBs = tl.dot(tl.trans(pair), Cs, dBs, input_precision=PRECISION)
        out = (t < room)[:, None] & (jn[None, :] < n)
        tl.store(dB + t[:, None] * n + jn[None, :], dBs.to(Bs.dtype), mask=out)
        tl.store(dC + t[:, None] * n + jn[None, :], dCs.to(Bs.dtype), mask=out)
        tl.debug_barrier()
