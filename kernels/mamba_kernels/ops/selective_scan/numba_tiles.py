"""What the forward and the backward kernel of the selective scan share.

A tile is `LANES` channels of one sequence. Its state, N rows of `LANES` floats, stays in the first-level cache.
Tensors arrive as `Rows` and as plain addresses; 0 is an absent tensor. Steps are counted in scan order, so a reversed
scan is a walk with negative strides.
"""

from typing import Any, NamedTuple

import numpy as np

from mamba_kernels.cpu.numba_runtime import inlined
from mamba_kernels.cpu.numba_vectors import (
    FLOAT32,
    LANES,
    LOG2_E,
    ROW,
    SPARE,
    exp2,
    exp2_bounded,
    larger_magnitude,
    largest,
    load,
    load_byte,
    load_row,
    load_scalar,
    softplus,
    splat,
    store,
    store_row,
    store_scalar,
)

f32 = np.float32
LN_2 = f32(0.6931471805599453)
BOUND = f32(126.0)
"""Below this magnitude the exponent of 2^x needs no care, which saves a fifth of the work."""


class Rows(NamedTuple):
    """Where the rows of a (B, L, channels) or (B, L, groups, N) tensor lie, in bytes; `dtype` as in `load_row`."""

    address: int
    batch: int
    time: int
    inner: int
    dtype: int


class Sizes(NamedTuple):
    """The shape of a scan and how it is cut: `tiles` per group of channels, `segment` steps per checkpoint."""

    batch: int
    length: int
    states: int
    groups: int
    group_channels: int
    tiles: int
    segment: int
    softplus: int
    reverse: int


class Parameters(NamedTuple):
    """Addresses of contiguous float32 A (D, N), D (D,) and delta_bias (D,)."""

    A: int
    D: int
    bias: int


class Tile(NamedTuple):
    """The channels that are being worked on: `width` of them, the first being `channel`; `spare` is scratch."""

    batch: int
    group: int
    channel: int
    width: int
    spare: int


class Walk(NamedTuple):
    """A row address and the distance to the row of the next step in scan order."""

    row: int
    step: int
    dtype: int


@inlined
def tile_at(sizes: Sizes, batch: int, index: int, spare: int) -> Tile:
    """Return the tile of a sequence by its index among groups x tiles."""
    group = index // sizes.tiles
    within = (index - group * sizes.tiles) * LANES
    count = min(LANES, sizes.group_channels - within)
    return Tile(batch, group, group * sizes.group_channels + within, count, spare)


@inlined
def walk(rows: Rows, sizes: Sizes, batch: int, inner: int) -> Walk:
    """Start at step 0 of the scan, which is the right end if it is reversed."""
    if rows.address == 0:
        return Walk(0, 0, 0)
    start = rows.address + batch * rows.batch + inner * rows.inner
    if sizes.reverse:
        return Walk(start + (sizes.length - 1) * rows.time, -rows.time, rows.dtype)
    return Walk(start, rows.time, rows.dtype)


@inlined
def ahead(walk: Walk, steps: int) -> Walk:
    """Return the walk that begins `steps` steps further on."""
    return Walk(walk.row + steps * walk.step, walk.step, walk.dtype)


@inlined
def load_at(walk: Walk, i: int, tile: Tile) -> Any:
    """Load the tile's row of step `i`."""
    return load_row(walk.row + i * walk.step, walk.dtype, tile.width, tile.spare)


@inlined
def store_at(walk: Walk, i: int, tile: Tile, value: Any) -> None:
    """Write the tile's row of step `i`."""
    store_row(walk.row + i * walk.step, walk.dtype, value, tile.width, tile.spare)


@inlined
def load_columns(target: int, source: int, count: int, states: int) -> None:
    """Transpose (count, states) floats into `states` rows."""
    for n in range(states):
        for j in range(count):
            store_scalar(target + n * ROW + 4 * j, load_scalar(source + 4 * (j * states + n)))


@inlined
def store_columns(target: int, source: int, count: int, states: int) -> None:
    """Transpose `states` rows into (count, states) floats."""
    for j in range(count):
        for n in range(states):
            store_scalar(target + 4 * (j * states + n), load_scalar(source + n * ROW + 4 * j))


@inlined
def copy_rows(target: int, source: int, rows: int) -> None:
    """Copy rows of scratch."""
    for i in range(rows):
        store(target + i * ROW, load(source + i * ROW))


@inlined
def zero_rows(target: int, rows: int) -> None:
    """Clear rows of scratch."""
    for i in range(rows):
        store(target + i * ROW, splat(f32(0.0)))


@inlined
def load_decay(target: int, sizes: Sizes, parameters: Parameters, tile: Tile) -> float:
    """Write log2(e) A of the tile as rows and return its greatest magnitude."""
    zero_rows(target, sizes.states)
    load_columns(target, parameters.A + 4 * tile.channel * sizes.states, tile.width, sizes.states)
    greatest = splat(f32(0.0))
    for n in range(sizes.states):
        scaled = load(target + n * ROW) * LOG2_E
        store(target + n * ROW, scaled)
        greatest = larger_magnitude(greatest, scaled)
    return largest(greatest)


@inlined
def load_parameter(target: int, source: int, tile: Tile) -> None:
    """Write the tile's part of D or delta_bias as a row; zeros if it is absent."""
    value = splat(f32(0.0))
    if source:
        value = load_row(source + 4 * tile.channel, FLOAT32, tile.width, tile.spare)
    store(target, value)


@inlined
def prepare(steps: int, sizes: Sizes, tile: Tile, x: Walk, delta: Walk, bias: int, dt: int, du: int) -> float:
    """Write dt = softplus(delta + bias) and du = dt x of `steps` rows; return the greatest |dt|."""
    shift = load(bias)
    greatest = splat(f32(0.0))
    for i in range(steps):
        d = load_at(delta, i, tile) + shift
        if sizes.softplus:
            d = softplus(d)
        store(dt + i * ROW, d)
        store(du + i * ROW, d * load_at(x, i, tile))
        greatest = larger_magnitude(greatest, d)
    return largest(greatest)


def _make_advance(exponential: Any) -> Any:
    @inlined
    def advance(
        steps: int,
        states: int,
        dt: int,
        du: int,
        y: int,
        decay: int,
        h: int,
        h_step: int,
        zeros: int,
        B: Walk,
        C: Walk,
        reset: Walk,
    ) -> None:
        """Step the state: h_t = 2^(dt A) h_{t-1} + du B_t, y_t = C_t h_t.

        The state after step i is written at `h + (i + 1) h_step`: in place for 0, all of them kept otherwise.
        """
        for i in range(steps):
            d = load(dt + i * ROW)
            u = load(du + i * ROW)
            b = B.row + i * B.step
            c = C.row + i * C.step
            before = h + i * h_step
            after = before + h_step
            if reset.row and load_byte(reset.row + i * reset.step):
                before = zeros
            sum_y = splat(f32(0.0))
            for n in range(states):
                a = exponential(d * load(decay + n * ROW))
                new = a * load(before + n * ROW) + u * load_scalar(b + 4 * n)
                store(after + n * ROW, new)
                sum_y = new * load_scalar(c + 4 * n) + sum_y
            store(y + i * ROW, sum_y)

    return advance


advance_bounded = _make_advance(exp2_bounded)
advance_any = _make_advance(exp2)


@inlined
def aligned(scratch: Any) -> int:
    """Return the address of scratch memory, rounded up to a cache line."""
    return (scratch.ctypes.data + 63) // 64 * 64


@inlined
def new_scratch(rows: int) -> Any:
    """Allocate zeroed memory for `rows` rows and what partial rows need; start at `aligned`."""
    return np.zeros((SPARE + rows * ROW) // 4 + 16, np.float32)


@inlined
def state_offset(sizes: Sizes, tile: Tile) -> int:
    """Bytes from the start of a (B, D, N) tensor to the tile's part."""
    channels = sizes.groups * sizes.group_channels
    return 4 * sizes.states * (tile.batch * channels + tile.channel)
