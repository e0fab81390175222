"""Whether a training step fits in memory, asked before the first one, and what to change if it does not.

The prediction adds up the tensors that a step holds at its peak (see `predict`); the factors for what an operator
needs besides, and for the holes that a heap gets, were measured on the CPU (`benchmarks/preflight.py` compares both).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from mamba_data_prep.errors import UserError
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.blocks.backbone import Chunking, chunking
from mamba_training.devices import device_kind, resolve_precision
from mamba_training.progress import say

_SCAN_STEPS = 256
"""Steps between two states that the scan keeps."""
_RUNTIME = {"cpu": 140 << 20, "cuda": 300 << 20}
"""Bytes that the first step needs whatever its size: compiled kernels, threads, library workspaces."""
_S4D_CHANNELS = 16
"""Float32 numbers that a convolution by FFT holds for each inner channel: spectra twice as long, and complex."""
_HYENA_CHANNELS = 12
"""Numbers that a Hyena layer holds for each inner channel: both gates, what goes into and out of them, the filter."""
_IN_ONE_PIECE = ("attention", "hyena")
"""Mixers that are not worked on in chunks."""
_WORKING_LAYERS = {"whole": 2.0, "chunks": 5.5, "stack": 2.0}
"""Memory that one layer's backward pass takes while it runs, as a multiple of a layer's activations; the figure for
chunks includes the heap's holes."""
_HOLES = 1.15
"""Size of the heap, as a multiple of what is kept in it between the chunks' short-lived blocks."""
_SHARE = 0.9
"""The share of the available memory that a run may plan with."""
_LEAST_CHUNK = 1024


@dataclass(frozen=True)
class Workload:
    """What one forward and backward pass works on.

    Args:
        config: of the backbone.
        parameters: trained numbers in the whole model.
        batch: sequences at a time on a device.
        length: tokens of a sequence on a device.
        precision: as the Trainer takes it.
        outputs: numbers a token that the head makes.
        device: "cpu" or "cuda".
        shared: each sequence is split over devices.
    """

    config: BackboneConfig
    parameters: int
    batch: int
    length: int
    precision: str = "32-true"
    outputs: int = 16
    device: str = "cpu"
    shared: bool = False

    @property
    def rows(self) -> int:
        """Sequences that the layers see, both strands counted."""
        return self.batch * (2 if self.config.reverse_complement == "equivariant" else 1)

    @property
    def chunking(self) -> Chunking:
        """How the layers work on them."""
        alone = not self.shared and self.config.bidirectional == "none"
        divisible = alone and not set(self.config.layers) & set(_IN_ONE_PIECE)
        return chunking(self.config, self.rows, self.length, self.wide, through_stack=divisible)

    @property
    def wide(self) -> int:
        """Bytes of a number of the residual stream."""
        return 8 if self.precision == "64-true" else 4


@dataclass(frozen=True)
class Footprint:
    """Bytes that a step takes, beyond what the process holds before it.

    Args:
        weights: gradients and AdamW's two moments; the weights themselves are there already.
        kept: from the forward pass to the backward pass.
        working: while one layer, or one chunk of it, is differentiated.
        runtime: whatever the size of the step.
    """

    weights: int
    kept: int
    working: int
    runtime: int

    @property
    def total(self) -> int:
        """The bytes of all parts together."""
        return self.weights + self.kept + self.working + self.runtime


def predict(work: Workload) -> Footprint:
    """The memory of one training step.

    Kept whole, a layer holds its input, norm, projection (2 D), convolution (D), step sizes (D), B and C, the scan's
    output (D) and its state every 256 steps. In chunks it holds its input and the states alone, and where a chunk goes
    through the whole stack not even these. `mamba2` and `attention` hold about as much as `mamba`.
    """
    config, rows, wide = work.config, work.rows, work.wide
    tokens, width = rows * work.length, config.strand_width
    directions = 1 if config.bidirectional == "none" else 2
    states = directions * wide * config.d_inner * config.d_state // _SCAN_STEPS
    inner = [_inner_bytes(work, mixer, directions, wide) + states for mixer in config.layers]
    chunk, through_stack = work.chunking
    head = tokens * (4 * wide * width + 5 * wide * work.outputs)
    if chunk is None:
        kept = tokens * (len(inner) * wide * width + sum(inner))
        working = _WORKING_LAYERS["whole"] * tokens * max(inner)
    elif through_stack:
        kept = tokens * wide * width
        working = _WORKING_LAYERS["stack"] * rows * chunk * (len(inner) * wide * width + sum(inner))
    else:
        kept = round(_HOLES * len(inner) * tokens * (wide * width + states))
        spans = [work.length if mixer in _IN_ONE_PIECE else min(chunk, work.length) for mixer in config.layers]
        largest = max(span * (wide * width + size) for span, size in zip(spans, inner, strict=True))
        working = _WORKING_LAYERS["chunks"] * rows * largest
    return Footprint(3 * wide * work.parameters, kept + head, round(working), _RUNTIME[work.device])


def _inner_bytes(work: Workload, mixer: str, directions: int, wide: int) -> int:
    """What one token takes inside a layer, its input and the scan's states apart."""
    config, width = work.config, work.config.strand_width
    element = 2 if work.precision.startswith("bf16") else wide
    if mixer == "s4d":
        return element * width + directions * wide * _S4D_CHANNELS * config.d_inner
    if mixer == "hyena":
        return element * width + directions * wide * _HYENA_CHANNELS * config.d_inner
    shared = 0  # tied directions have one projection, and "add" one output
    if directions == 2 and config.tie_directions:
        shared = (3 if config.bidirectional == "add" else 2) * config.d_inner
    return element * (width + directions * (5 * config.d_inner + config.rank + 2 * config.d_state) - shared)


def available_bytes(device: str = "cpu") -> int:
    """Memory that this process can still get: of the GPU, or of the machine within its container's limits."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return min(psutil.virtual_memory().available, *_container_rooms())


def _container_rooms(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What is left within each limit on this process's control groups (Linux, version 1 and 2)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [2**63]
    rooms = [2**63]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        base = root if controllers == "" else root / "memory"
        names = (
            ("memory.max", "memory.current")
            if controllers == ""
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        inside = base / path.strip("/")
        for folder in (inside, *inside.parents):
            rooms.append(_room(folder, *names))
            if folder == base:
                break
    return rooms


def _room(folder: Path, limit_name: str, used_name: str) -> int:
    """The limit less what is used and cannot be given back; a file cache can."""
    try:
        limit, used = (folder / limit_name).read_text().strip(), int((folder / used_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 2**63
    return 2**63 if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))


@dataclass(frozen=True)
class Fitted:
    """A step that fits.

    Args:
        work: with the batch and the chunk size that fit.
        accumulation: batches a step, so that it sees as many sequences as was asked.
        footprint: of `work`.
        note: what was changed, in one line; empty if nothing was.
    """

    work: Workload
    accumulation: int
    footprint: Footprint
    note: str = ""


def fit_in_memory(
    work: Workload, accumulation: int = 1, available: int | None = None, *, batch_is_fixed: bool = False
) -> Fitted:
    """The workload as it is, or with a smaller batch and more accumulation, or in smaller chunks.

    A smaller batch comes first: it costs next to nothing. Chunks cost about a quarter of the speed.

    Args:
        work: what was asked.
        accumulation: batches a step that were asked.
        available: bytes; None asks the machine.
        batch_is_fixed: only the chunks may be made smaller.

    Raises:
        UserError: not even one sequence in the smallest chunks fits; with the longest one that would.
    """
    room = available_bytes(work.device) if available is None else available
    asked = predict(work)
    for smaller in _smaller_chunks(work) if batch_is_fixed else _smaller(work):
        if (found := predict(smaller)).total <= _SHARE * room:
            factor = work.batch // smaller.batch
            note = "" if smaller == work else _note(work, smaller, asked, room, accumulation * factor)
            return Fitted(smaller, accumulation * factor, found, note)
    raise UserError(
        f"a training step of {work.batch:,} x {work.length:,} tokens takes about {_gib(asked.total)}, more than this "
        "machine has",
        found=f"{_gib(room)} free",
        accepted=f"windows of up to about {_longest(work, room):,} tokens, or a smaller model",
        fix="use shorter windows, fewer layers or channels, or share each window: --devices N --context-parallel N",
    )


def settle(work: Workload, accumulation: int = 1, processes: int = 1, *, batch_is_fixed: bool = False) -> Fitted:
    """`fit_in_memory` for a run of one process; several must not each decide alone, so they are only told.

    Processes on the CPU share its memory.
    """
    if processes == 1:
        return fit_in_memory(work, accumulation, batch_is_fixed=batch_is_fixed)
    room = available_bytes(work.device) // (processes if work.device == "cpu" else 1)
    found = predict(work)
    fits = found.total <= _SHARE * room
    note = (
        "" if fits else f"memory: a step takes about {_gib(found.total)} a process, and {_gib(room)} are free for each"
    )
    return Fitted(work, accumulation, found, note)


def within_memory(
    backbone: Backbone,
    *,
    parameters: int,
    batch: int,
    length: int,
    outputs: int,
    precision: str,
    accelerator: str,
    accumulation: int = 1,
    processes: int = 1,
    shared: bool = False,
    batch_is_fixed: bool = False,
) -> Fitted:
    """A step on so many sequences, or one with smaller batches or chunks where the machine has too little memory.

    The backbone is set to the chunks that fit, and the user is told what was changed.

    Args:
        backbone: of the model that is trained.
        parameters: trained numbers in the whole model.
        batch: sequences at a time on a device.
        length: tokens of a sequence on a device.
        outputs: numbers a token that the head makes.
        precision, accelerator: as the run takes them.
        accumulation: batches a step that were asked.
        processes: that train together.
        shared: they share each sequence.
        batch_is_fixed: only the chunks may be made smaller.

    Raises:
        UserError: not even one sequence fits, however small the chunks.
    """
    device = "cuda" if device_kind(accelerator) == "cuda" else "cpu"
    kind = resolve_precision(precision, accelerator)
    work = Workload(backbone.config, parameters, batch, length, kind, outputs, device, shared)
    fitted = settle(work, accumulation, processes, batch_is_fixed=batch_is_fixed)
    if fitted.note:
        say(fitted.note)
    backbone.config = fitted.work.config
    return fitted


def _smaller(work: Workload) -> list[Workload]:
    """The workload, then what does the same with less memory, in the order of what it costs."""
    batches = [size for size in range(work.batch, 0, -1) if work.batch % size == 0]
    steps = [dataclasses.replace(work, batch=size) for size in batches]
    present = dataclasses.replace(work, batch=1).chunking.tokens or work.length
    chunk = 1 << 14
    while chunk >= _LEAST_CHUNK:
        if chunk < present:
            config = dataclasses.replace(work.config, chunk_size=chunk)
            steps.append(dataclasses.replace(work, batch=1, config=config))
        chunk //= 2
    return steps


def _smaller_chunks(work: Workload) -> list[Workload]:
    """The workload, then the same batch in smaller and smaller chunks."""
    present = work.chunking.tokens or work.length
    sizes = [size for size in (2**power for power in range(14, 3, -1)) if size < present]
    sizes = [size for size in sizes if size * work.batch >= _LEAST_CHUNK]
    return [work, *(dataclasses.replace(work, config=dataclasses.replace(work.config, chunk_size=n)) for n in sizes)]


def _longest(work: Workload, room: int) -> int:
    """The longest sequence, to a hundredth, that fits alone in the smallest chunks."""
    config = dataclasses.replace(work.config, chunk_size=_LEAST_CHUNK)
    one = dataclasses.replace(work, batch=1, config=config)
    length = work.length
    while length > 1 and predict(dataclasses.replace(one, length=length)).total > _SHARE * room:
        length = min(length - 1, length * 99 // 100)
    return length


def _note(work: Workload, smaller: Workload, asked: Footprint, room: int, accumulation: int) -> str:
    changes = []
    if smaller.batch != work.batch:
        changes.append(f"batch {smaller.batch:,} x {accumulation:,} accumulated instead of {work.batch:,}")
    if smaller.config != work.config:
        changes.append(f"chunks of {smaller.config.chunk_size:,} tokens")
    told = f"memory: a step would take about {_gib(asked.total)} of {_gib(room)} free"
    return f"{told}, so it is done with {', '.join(changes)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
