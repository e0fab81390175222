"""The backward kernel of the selective scan; README.md in this folder has the derivation."""

from typing import Any, NamedTuple

from mamba_kernels.cpu.numba_runtime import inlined, kernel
from mamba_kernels.cpu.numba_vectors import (
    ROW,
    SPARE,
    exp2,
    exp2_bounded,
    load,
    load_byte,
    load_scalar,
    sigmoid,
    splat,
    store,
    store_scalar,
    total,
)
from mamba_kernels.ops.selective_scan.numba_tiles import (
    BOUND,
    LN_2,
    Parameters,
    Rows,
    Sizes,
    Tile,
    Walk,
    advance_any,
    advance_bounded,
    ahead,
    aligned,
    copy_rows,
    f32,
    load_at,
    load_columns,
    load_decay,
    load_parameter,
    new_scratch,
    prepare,
    state_offset,
    store_at,
    store_columns,
    tile_at,
    walk,
    zero_rows,
)


@inlined
def _gates(
    steps: int, tile: Tile, raw: int, g: int, x: Walk, z: Walk, dy: Walk, dz: Walk, again: Walk, skip: int, d_skip: int
) -> None:
    """Turn the output's gradient into that of the bare scan, `steps` rows at `g`, and write the gate's gradient.

    With y = raw + D x and out = y silu(z); silu'(z) = sigmoid(z) (1 + z (1 - sigmoid(z))). Where `again` is given the
    output is written there once more.
    """
    weight = load(skip)
    sum_d = load(d_skip)
    one = splat(f32(1.0))
    for i in range(steps):
        grad = load_at(dy, i, tile)
        u = load_at(x, i, tile)
        value = load(raw + i * ROW) + weight * u
        if z.row:
            gate = load_at(z, i, tile)
            share = sigmoid(gate)
            silu = gate * share
            store_at(dz, i, tile, grad * value * (share * (one + gate * (one - share))))
            value = value * silu
            grad = grad * silu
        if again.row:
            store_at(again, i, tile, value)
        sum_d = sum_d + grad * u
        store(g + i * ROW, grad)
    store(d_skip, sum_d)


def _make_retreat(exponential: Any) -> Any:
    @inlined
    def retreat(
        steps: int,
        sizes: Sizes,
        dt: int,
        du: int,
        g: int,
        decay: int,
        h: int,
        zeros: int,
        dh: int,
        dA: int,
        B: Walk,
        C: Walk,
        reset: Walk,
        dB: Walk,
        dC: Walk,
        add: bool,
        sums: int,
    ) -> None:
        """Step the state's gradient back through a segment whose states lie at `h`, N rows a step.

        With G = dL/dh_t: G += g C_t, then dC_t = g h_t, dB_t = G du (each summed over the tile's channels),
        d(du) = G B_t, q = G a_t h_{t-1}, d(dt) = q A, dA = q dt, and G a_t is what reaches h_{t-1}. Writes d(du)
        over du, and d(dt) / ln 2 at `sums`. `add` says whether an earlier tile has written dB and dC.
        """
        N = sizes.states
        for k in range(steps):
            i = steps - 1 - k
            d = load(dt + i * ROW)
            u = load(du + i * ROW)
            grad_y = load(g + i * ROW)
            b = B.row + i * B.step
            c = C.row + i * C.step
            db = dB.row + i * dB.step
            dc = dC.row + i * dC.step
            after = h + (i + 1) * N * ROW
            before = h + i * N * ROW
            cut = reset.row != 0 and load_byte(reset.row + i * reset.step) != 0
            if cut:
                before = zeros
            sum_b = splat(f32(0.0))
            sum_q = splat(f32(0.0))
            for n in range(N):
                rate = load(decay + n * ROW)
                grad = grad_y * load_scalar(c + 4 * n) + load(dh + n * ROW)
                back = grad * exponential(d * rate)
                store(dh + n * ROW, back)
                q = back * load(before + n * ROW)
                store(dA + n * ROW, q * d + load(dA + n * ROW))
                sum_q = q * rate + sum_q
                sum_b = grad * load_scalar(b + 4 * n) + sum_b
                to_c = total(grad_y * load(after + n * ROW))
                to_b = total(grad * u)
                if add:
                    to_c += load_scalar(dc + 4 * n)
                    to_b += load_scalar(db + 4 * n)
                store_scalar(dc + 4 * n, to_c)
                store_scalar(db + 4 * n, to_b)
            if cut:
                zero_rows(dh, N)
            store(du + i * ROW, sum_b)
            store(sums + i * ROW, sum_q)

    return retreat


_retreat_bounded = _make_retreat(exp2_bounded)
_retreat_any = _make_retreat(exp2)


@inlined
def _input_gradients(
    steps: int,
    sizes: Sizes,
    tile: Tile,
    dt: int,
    d_du: int,
    g: int,
    sums: int,
    x: Walk,
    delta: Walk,
    dx: Walk,
    d_delta: Walk,
    bias: int,
    skip: int,
    d_bias: int,
) -> None:
    """Write the gradients of x and delta: du = dt x, y += D x, dt = softplus(delta + bias)."""
    weight = load(skip)
    shift = load(bias)
    sum_bias = load(d_bias)
    for i in range(steps):
        from_state = load(d_du + i * ROW)
        store_at(dx, i, tile, from_state * load(dt + i * ROW) + load(g + i * ROW) * weight)
        grad = load(sums + i * ROW) * LN_2 + from_state * load_at(x, i, tile)
        if sizes.softplus:
            grad = grad * sigmoid(load_at(delta, i, tile) + shift)
        store_at(d_delta, i, tile, grad)
        sum_bias = sum_bias + grad
    store(d_bias, sum_bias)


class Gradients(NamedTuple):
    """Where the backward pass writes: rows, then addresses of (B, D, N) and (B, D) floats, one part per sequence."""

    x: Rows
    delta: Rows
    z: Rows
    y: Rows
    B: Rows
    C: Rows
    A: int
    D: int
    bias: int
    state: int


@inlined
def _moved(rows: Rows, offset: int) -> Rows:
    return Rows(rows.address + offset, rows.batch, rows.time, rows.inner, rows.dtype)


@inlined
def _part(out: Gradients, offset: int) -> Gradients:
    """Return `out` with dB and dC in another buffer."""
    dB = _moved(out.B, offset)
    dC = _moved(out.C, offset)
    return Gradients(out.x, out.delta, out.z, out.y, dB, dC, out.A, out.D, out.bias, out.state)


@inlined
def _backward_segment(
    t: int,
    block: int,
    work: int,
    zeros: int,
    kept: int,
    add: bool,
    sizes: Sizes,
    tile: Tile,
    x: Rows,
    delta: Rows,
    z: Rows,
    B: Rows,
    C: Rows,
    dy: Rows,
    reset: Rows,
    out: Gradients,
) -> None:
    """Rebuild the states of one segment from its checkpoint and step back through it."""
    N = sizes.states
    steps = min(sizes.segment, sizes.length - t)
    decay = block + 5 * ROW
    dh = decay + N * ROW
    dA = dh + N * ROW
    dt = work
    du = dt + sizes.segment * ROW
    raw = du + sizes.segment * ROW
    g = raw + sizes.segment * ROW
    h = g + sizes.segment * ROW
    xs = ahead(walk(x, sizes, tile.batch, tile.channel), t)
    deltas = ahead(walk(delta, sizes, tile.batch, tile.channel), t)
    bs = ahead(walk(B, sizes, tile.batch, tile.group), t)
    cs = ahead(walk(C, sizes, tile.batch, tile.group), t)
    rs = ahead(walk(reset, sizes, tile.batch, 0), t)
    bounded = prepare(steps, sizes, tile, xs, deltas, block + ROW, dt, du) * load_scalar(block) < BOUND
    copy_rows(h, kept, N)
    if bounded:
        advance_bounded(steps, N, dt, du, raw, decay, h, N * ROW, zeros, bs, cs, rs)
    else:
        advance_any(steps, N, dt, du, raw, decay, h, N * ROW, zeros, bs, cs, rs)
    zs = ahead(walk(z, sizes, tile.batch, tile.channel), t)
    dys = ahead(walk(dy, sizes, tile.batch, tile.channel), t)
    dzs = ahead(walk(out.z, sizes, tile.batch, tile.channel), t)
    again = ahead(walk(out.y, sizes, tile.batch, tile.channel), t)
    _gates(steps, tile, raw, g, xs, zs, dys, dzs, again, block + 2 * ROW, block + 3 * ROW)
    dbs = ahead(walk(out.B, sizes, tile.batch, tile.group), t)
    dcs = ahead(walk(out.C, sizes, tile.batch, tile.group), t)
    if bounded:
        _retreat_bounded(steps, sizes, dt, du, g, decay, h, zeros, dh, dA, bs, cs, rs, dbs, dcs, add, raw)
    else:
        _retreat_any(steps, sizes, dt, du, g, decay, h, zeros, dh, dA, bs, cs, rs, dbs, dcs, add, raw)
    dxs = ahead(walk(out.x, sizes, tile.batch, tile.channel), t)
    d_deltas = ahead(walk(out.delta, sizes, tile.batch, tile.channel), t)
    _input_gradients(
        steps, sizes, tile, dt, du, g, raw, xs, deltas, dxs, d_deltas, block + ROW, block + 2 * ROW, block + 4 * ROW
    )


@inlined
def _begin_backward(block: int, sizes: Sizes, parameters: Parameters, tile: Tile, d_state: int) -> None:
    """Fill a tile's block, rows of: bound, delta_bias, D, their gradients, then N of decay, state gradient, dA."""
    N = sizes.states
    load_parameter(block + ROW, parameters.bias, tile)
    load_parameter(block + 2 * ROW, parameters.D, tile)
    decay = block + 5 * ROW
    store(block, splat(load_decay(decay, sizes, parameters, tile)))
    zero_rows(block + 3 * ROW, 2)
    zero_rows(decay + N * ROW, 2 * N)
    if d_state:
        load_columns(decay + N * ROW, d_state + state_offset(sizes, tile), tile.width, N)


@inlined
def _end_backward(block: int, sizes: Sizes, tile: Tile, out: Gradients) -> None:
    """Write what was summed over time."""
    N = sizes.states
    dh = block + (5 + N) * ROW
    offset = state_offset(sizes, tile)
    store_columns(out.state + offset, dh, tile.width, N)
    store_columns(out.A + offset, dh + N * ROW, tile.width, N)
    store_columns(out.D + offset // N, block + 3 * ROW, tile.width, 1)
    store_columns(out.bias + offset // N, block + 4 * ROW, tile.width, 1)


@kernel
def backward(
    lo: int,
    hi: int,
    abreast: int,
    sizes: Sizes,
    parameters: Parameters,
    x: Rows,
    delta: Rows,
    z: Rows,
    B: Rows,
    C: Rows,
    dy: Rows,
    reset: Rows,
    d_state: int,
    checkpoints: int,
    out: Gradients,
    parts: int,
) -> None:
    """Differentiate the scan of the parts `lo` to `hi` of batch x groups x parts.

    A part is up to `abreast` neighbouring tiles of a group; each adds its channels' dB and dC in a buffer of its own,
    (parts, B, L, G, N) floats, `parts` bytes apart, so that the sums' order never depends on the threads.
    """
    N = sizes.states
    scratch = new_scratch(N + sizes.segment * (4 + N) + N + 5 + 3 * N)
    spare = aligned(scratch)
    zeros = spare + SPARE
    block = zeros + N * ROW
    work = block + (5 + 3 * N) * ROW
    in_group = (sizes.tiles + abreast - 1) // abreast
    segments = (sizes.length + sizes.segment - 1) // sizes.segment
    for task in range(lo, hi):
        group = task // in_group
        part = task - group * in_group
        batch = group // sizes.groups
        for k in range(part * abreast, min((part + 1) * abreast, sizes.tiles)):
            index = group * sizes.tiles + k
            tile = tile_at(sizes, batch, index - batch * sizes.groups * sizes.tiles, spare)
            _begin_backward(block, sizes, parameters, tile, d_state)
            mine = _part(out, part * parts)
            for segment in range(segments - 1, -1, -1):
                kept = checkpoints + (index * segments + segment) * N * ROW
                add = k > part * abreast
                t = segment * sizes.segment
                _backward_segment(t, block, work, zeros, kept, add, sizes, tile, x, delta, z, B, C, dy, reset, mine)
            _end_backward(block, sizes, tile, out)
    scratch[0] = 0.0  # the last use, as in `forward`
