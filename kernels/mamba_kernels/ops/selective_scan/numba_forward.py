"""The forward kernel of the selective scan; README.md in this folder has the derivation."""

from mamba_kernels.cpu.numba_runtime import inlined, kernel
from mamba_kernels.cpu.numba_vectors import ROW, SPARE, load, load_scalar, sigmoid, splat, store
from mamba_kernels.ops.selective_scan.numba_tiles import (
    BOUND,
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

CHUNK = 32
"""Steps whose dt, dt x and y are held beside the state in the first-level cache."""

ABREAST = 16
"""Tiles that go through time side by side: 512 channels."""


@inlined
def _finish(steps: int, tile: Tile, y: int, x: Walk, z: Walk, skip: int, out: Walk) -> None:
    """Add D x, multiply by silu(z), and write `steps` rows of output."""
    weight = load(skip)
    for i in range(steps):
        value = load(y + i * ROW) + weight * load_at(x, i, tile)
        if z.row:
            gate = load_at(z, i, tile)
            value = value * (gate * sigmoid(gate))
        store_at(out, i, tile, value)


@inlined
def _begin(block: int, sizes: Sizes, parameters: Parameters, tile: Tile, state_in: int) -> None:
    """Fill a tile's block of scratch, rows of: bound, delta_bias, D, N of decay, N of state."""
    N = sizes.states
    store(block, splat(load_decay(block + 3 * ROW, sizes, parameters, tile)))
    load_parameter(block + ROW, parameters.bias, tile)
    load_parameter(block + 2 * ROW, parameters.D, tile)
    h = block + (3 + N) * ROW
    zero_rows(h, N)
    if state_in:
        load_columns(h, state_in + state_offset(sizes, tile), tile.width, N)


@inlined
def _forward_chunk(
    t: int,
    block: int,
    work: int,
    zeros: int,
    sizes: Sizes,
    tile: Tile,
    x: Rows,
    delta: Rows,
    z: Rows,
    B: Rows,
    C: Rows,
    y: Rows,
    reset: Rows,
) -> None:
    """Take one tile through the steps of one chunk."""
    steps = min(CHUNK, sizes.length - t)
    decay = block + 3 * ROW
    h = decay + sizes.states * ROW
    dt = work
    du = dt + CHUNK * ROW
    raw = du + CHUNK * ROW
    xs = ahead(walk(x, sizes, tile.batch, tile.channel), t)
    deltas = ahead(walk(delta, sizes, tile.batch, tile.channel), t)
    greatest = prepare(steps, sizes, tile, xs, deltas, block + ROW, dt, du)
    bs = ahead(walk(B, sizes, tile.batch, tile.group), t)
    cs = ahead(walk(C, sizes, tile.batch, tile.group), t)
    rs = ahead(walk(reset, sizes, tile.batch, 0), t)
    if greatest * load_scalar(block) < BOUND:
        advance_bounded(steps, sizes.states, dt, du, raw, decay, h, 0, zeros, bs, cs, rs)
    else:
        advance_any(steps, sizes.states, dt, du, raw, decay, h, 0, zeros, bs, cs, rs)
    zs = ahead(walk(z, sizes, tile.batch, tile.channel), t)
    ys = ahead(walk(y, sizes, tile.batch, tile.channel), t)
    _finish(steps, tile, raw, xs, zs, block + 2 * ROW, ys)


@kernel
def forward(
    lo: int,
    hi: int,
    sizes: Sizes,
    parameters: Parameters,
    x: Rows,
    delta: Rows,
    z: Rows,
    B: Rows,
    C: Rows,
    y: Rows,
    reset: Rows,
    state_in: int,
    state_out: int,
    checkpoints: int,
) -> None:
    """Scan the tiles `lo` to `hi` of batch x groups x tiles.

    `state_in` and `state_out` are (B, D, N) floats, `checkpoints` (B, groups, tiles, segments, N, LANES) floats.
    Neighbouring tiles go through time side by side, so that whole rows of the tensors are read at once.
    """
    N = sizes.states
    block_size = (3 + 2 * N) * ROW
    scratch = new_scratch(N + 3 * CHUNK + ABREAST * (3 + 2 * N))
    spare = aligned(scratch)
    zeros = spare + SPARE
    work = zeros + N * ROW
    blocks = work + 3 * CHUNK * ROW
    tiles = sizes.groups * sizes.tiles
    segments = (sizes.length + sizes.segment - 1) // sizes.segment
    first = lo
    while first < hi:
        batch = first // tiles
        last = min(hi, first + ABREAST, (batch + 1) * tiles)
        for k in range(first, last):
            tile = tile_at(sizes, batch, k - batch * tiles, spare)
            _begin(blocks + (k - first) * block_size, sizes, parameters, tile, state_in)
        for t in range(0, sizes.length, CHUNK):
            for k in range(first, last):
                tile = tile_at(sizes, batch, k - batch * tiles, spare)
                block = blocks + (k - first) * block_size
                if checkpoints and t % sizes.segment == 0:
                    kept = checkpoints + (k * segments + t // sizes.segment) * N * ROW
                    copy_rows(kept, block + (3 + N) * ROW, N)
                _forward_chunk(t, block, work, zeros, sizes, tile, x, delta, z, B, C, y, reset)
        for k in range(first, last):
            tile = tile_at(sizes, batch, k - batch * tiles, spare)
            h = blocks + (k - first) * block_size + (3 + N) * ROW
            store_columns(state_out + state_offset(sizes, tile), h, tile.width, N)
        first = last
    scratch[0] = 0.0  # the last use: Numba frees an array after it, and knows nothing of addresses
