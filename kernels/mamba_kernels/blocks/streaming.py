"""A backbone over a sequence of any length in memory that does not grow with it, without gradients.

A causal backbone goes through the pieces once, with its state. One that looks both ways must have seen the end of the
sequence before its second layer can begin, so it goes layer by layer, and the residual stream between two layers lies
in a temporary file: 8 bytes a token and channel. Each directed pass is walked once in its own direction, so nothing is
computed twice; what is added is reading and writing the stream, five times a layer with two passes.

Shapes: `B` batch, `L` tokens of a piece.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.registry import Branch, LayerState, Mixer, Piece, computing_dtype

StreamPiece = Tensor | tuple[Tensor, Tensor | None]
"""Consecutive tokens `x` (B, L, d_model), or `(x, reset)` with `reset` (B, L) bool as in `Backbone.forward`."""


@runtime_checkable
class Block(Protocol):
    """What streaming asks of a block."""

    @property
    def norm(self) -> nn.Module:
        """Normalises the residual stream before the mixer."""
        ...

    @property
    def mixer(self) -> Mixer:
        """Its branches are run one after another."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The block's weights, whose dtype is computed in."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """What streaming asks of a backbone."""

    @property
    def config(self) -> BackboneConfig:
        """What the backbone was built from."""
        ...

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks, first to last."""
        ...

    @property
    def norm(self) -> nn.Module:
        """Normalises the stream after the last block."""
        ...

    def check(self, x: Tensor, state: Sequence[LayerState] | None, reset: Tensor | None) -> None:
        """Refuse an input that the backbone does not take."""
        ...

    def __call__(self, x: Tensor, state: Any = None, *, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """Run one piece of a causal backbone."""
        ...


def stream(backbone: Backbone, pieces: Iterable[StreamPiece], scratch: str | Path | None = None) -> Iterator[Tensor]:
    """Yields the backbone's output, one piece for each piece of the input; see `Backbone.stream`."""
    if backbone.config.causal:
        yield from _stream_causal(backbone, pieces)
    else:
        _check_divisible(backbone)
        with _Storage(scratch) as storage:
            yield from _stream_both_ways(backbone, pieces, storage)


def _split(piece: StreamPiece) -> tuple[Tensor, Tensor | None]:
    return (piece, None) if isinstance(piece, Tensor) else piece


def _stream_causal(backbone: Backbone, pieces: Iterable[StreamPiece]) -> Iterator[Tensor]:
    state = None
    for x, reset in map(_split, pieces):
        with torch.no_grad():  # not around the loop: between two pieces the caller's code runs
            y, after = backbone(x, state, reset=reset)
            state = after if state is None else tuple(map(_in_place, state, after))
        yield y


def _in_place(state: LayerState, after: LayerState) -> LayerState:
    """`after`, in the memory of `state` where it has the same shape.

    What a piece leaves behind would otherwise lie among the freed temporaries of the next, and break up the heap.
    """
    if any(old.shape != new.shape or old.dtype != new.dtype for old, new in zip(state, after, strict=True)):
        return after
    return tuple(old.copy_(new) for old, new in zip(state, after, strict=True))


def _check_divisible(backbone: Backbone) -> None:
    for index, block in enumerate(_blocks(backbone)):
        if not all(branch.divisible for branch in block.mixer.branches()):
            name = backbone.config.layers[index]
            raise ValueError(
                f"layers[{index}] is {name!r}, which looks at the whole sequence at once and cannot be streamed in "
                "both directions; run the backbone on the whole sequence, or use state space mixers only"
            )


def _blocks(backbone: Backbone) -> Sequence[Block]:
    return list(backbone.blocks)  # pyright: ignore[reportReturnType]  (a ModuleList does not say what it holds)


def _stream_both_ways(backbone: Backbone, pieces: Iterable[StreamPiece], storage: _Storage) -> Iterator[Tensor]:
    strands, marks, like = _take_in(backbone, pieces, storage)
    with torch.no_grad():
        for block in _blocks(backbone):
            for strand in strands:
                _run_block(block, strand, marks, like)
    for index in range(len(marks)):
        yield _last_norm(backbone, strands, index, like)


@torch.no_grad()
def _last_norm(backbone: Backbone, strands: Sequence[_Strand], index: int, like: Tensor) -> Tensor:
    """The output at one piece, from the stream after the last block."""
    y = [backbone.norm(strand.now.read(index).to(like.device)).to(like.dtype) for strand in strands]
    return y[0] if len(y) == 1 else torch.cat([y[0], y[1].flip(2)], dim=-1)


class _Strand:
    """The residual stream of one strand: what a block reads, and what it writes.

    Args:
        now, after: the two files, which change places after each block.
        opposite: this is the strand that is read from the right, with its channels in opposite order.
    """

    def __init__(self, now: _Spill, after: _Spill, *, opposite: bool) -> None:
        self.now, self.after, self.opposite = now, after, opposite

    def turned(self, tensor: Tensor) -> Tensor:
        """A piece in the order in which this strand is read, or back."""
        return tensor.flip(1) if self.opposite else tensor


class _Marks:
    """Where documents begin and end in each piece, or None where no piece says."""

    def __init__(self) -> None:
        self.resets: list[Tensor | None] = []

    def __len__(self) -> int:
        return len(self.resets)

    def at(self, index: int, like: Tensor, *, leftwards: bool) -> Tensor | None:
        """Return where a pass over piece `index` (B, L) begins anew: at first tokens, or leftwards at last ones."""
        if all(reset is None for reset in self.resets):
            return None
        here = self._filled(index, like)
        if not leftwards:
            return here
        following = self._filled(index + 1, like)[:, :1] if index + 1 < len(self) else torch.zeros_like(here[:, :1])
        return torch.cat([here[:, 1:], following], dim=1)

    def _filled(self, index: int, like: Tensor) -> Tensor:
        reset = self.resets[index]
        return torch.zeros(like.shape[:2], dtype=torch.bool, device=like.device) if reset is None else reset


def _take_in(
    backbone: Backbone, pieces: Iterable[StreamPiece], storage: _Storage
) -> tuple[list[_Strand], _Marks, Tensor]:
    """Puts the input into the files; also gives an empty tensor with the input's rows, dtype and device."""
    both = backbone.config.reverse_complement == "equivariant"
    strands = [_Strand(storage.spill(), storage.spill(), opposite=index == 1) for index in range(2 if both else 1)]
    marks, like = _Marks(), torch.empty(0, 0, backbone.config.d_model)
    for x, reset in map(_split, pieces):
        backbone.check(x, None, reset)
        if x.shape[1] == 0:
            continue
        like, wide = x[:, :0], x.to(torch.promote_types(x.dtype, torch.float32))
        parts = wide.chunk(2, dim=-1) if both else (wide,)
        for strand, part in zip(strands, parts, strict=True):
            strand.now.append(part.flip(2) if strand.opposite else part)
            strand.after.append(part)
        marks.resets.append(reset)
    return strands, marks, like


def _run_block(block: Block, strand: _Strand, marks: _Marks, like: Tensor) -> None:
    """`after = now + sum of the branches of norm(now)`, each branch walking the pieces in its own direction."""
    for number, branch in enumerate(block.mixer.branches()):
        _run_branch(block, branch, strand, marks, like, strand.now if number == 0 else strand.after)
    strand.now, strand.after = strand.after, strand.now


def _run_branch(block: Block, branch: Branch, strand: _Strand, marks: _Marks, like: Tensor, before: _Spill) -> None:
    leftwards = branch.reverse != strand.opposite
    state = branch.initial_state(
        like.shape[0], like.device, computing_dtype(like.device.type, list(block.parameters()))
    )
    for index in range(len(marks))[:: -1 if leftwards else 1]:
        x = strand.now.read(index).to(like.device)
        reset = marks.at(index, x, leftwards=leftwards)
        piece = Piece(None if reset is None else strand.turned(reset))
        y, after = branch.run(block.norm(strand.turned(x)), state, piece)
        state = _in_place(state, after)
        total = x if before is strand.now else before.read(index).to(like.device)
        strand.after.write(index, total + strand.turned(y))


class _Storage:
    """The files of one stream, closed with it.

    Args:
        folder: where they lie; None is the system's folder for temporary files.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder, self.spills = folder, []

    def __enter__(self) -> _Storage:
        return self

    def __exit__(self, *_: object) -> None:
        for spill in self.spills:
            spill.file.close()

    def spill(self) -> _Spill:
        """One more file. It has no name, so nothing is left behind however the process ends."""
        self.spills.append(_Spill(tempfile.TemporaryFile(dir=self.folder)))  # noqa: SIM115  (closed by __exit__)
        return self.spills[-1]


class _Spill:
    """One tensor a piece, in a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._places: list[tuple[int, torch.Size, torch.dtype]] = []
        self._end = 0

    def append(self, tensor: Tensor) -> None:
        """The tensor of the next piece."""
        self._places.append((self._end, tensor.shape, tensor.dtype))
        self._end += tensor.numel() * tensor.element_size()
        self.write(len(self._places) - 1, tensor)

    def write(self, index: int, tensor: Tensor) -> None:
        """Another tensor of the same shape for a piece."""
        self.file.seek(self._places[index][0])
        self.file.write(_bytes_of(tensor.to(self._places[index][2]).cpu().contiguous()))

    def read(self, index: int) -> Tensor:
        """The tensor of a piece, on the CPU."""
        start, shape, dtype = self._places[index]
        tensor = torch.empty(shape, dtype=dtype)
        self.file.seek(start)
        if self.file.readinto(_bytes_of(tensor)) != tensor.numel() * tensor.element_size():  # pyright: ignore
            raise OSError("the temporary file of a stream was cut")
        return tensor


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
