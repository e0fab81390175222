"""Models as ONNX files, which onnxruntime and others run without torch and without this package.

Shapes: `B` sequences, `L` bases, `V` = 16 rows of the vocabulary, `C` classes; batch and length stay free.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.export import Dim

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.checks import check_onnx
from genomamba.language_model.context_table import LONG_ORDER
from genomamba.language_model.model import Carried, GenomeLM
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import versions

_TRACED: Final = 2, 40
"""Sequences and bases of the example that a model is traced with; any others will do."""


def export_onnx(model: GenomeLM | SequenceClassifier, path: str | Path, *, step: bool = False) -> Path:
    """Writes a model as an ONNX file: float32 on the CPU, dropout off, any batch size and length.

    A classifier takes `ids` (B, L) int64, padded on the right, and `lengths` (B,) int64, and gives `probabilities`
    (B, C) with the temperature applied, and `logits`. A language model takes `ids` and gives `logits` (B, L, V). With
    `step` it takes one token of each sequence, `ids` (B,), and what it has made of those before: `recent` (B, 16), the
    last tokens, and `state_0`, `state_1`, ...; it gives `logits` (B, V), and `new_recent`, `new_state_0`, ... for the
    next token. At the beginning `recent` is all `[PAD]` and each state zero.

    The file's metadata tell the vocabulary, the classes, the window and the versions that wrote it.

    Args:
        model: as `genomamba.load` gives it.
        path: of the file; one that exists is replaced, whole or not at all.
        step: one token at a time, of a causal language model.

    Returns:
        The path.

    Raises:
        UserError: the package onnx or onnxscript is missing, or `step` is asked of a model that cannot go so.
    """
    path = Path(path)
    check_onnx(path)
    if step and isinstance(model, SequenceClassifier):
        raise UserError("a classifier looks at a whole sequence", fix="leave out --step")
    run, inputs, names, shapes = _of_classifier(model) if isinstance(model, SequenceClassifier) else _of_lm(model, step)
    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            run.eval(), inputs, input_names=names[0], output_names=names[1], dynamic_shapes=shapes, verbose=False
        )
    for name, value in _about(model, step).items():
        program.model.metadata_props[name] = value
    with atomic_write(path, "wb") as stream:
        stream.write(program.model_proto.SerializeToString())
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what torch says of its own inside: names that it gave up, and operators of packages not here."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        log.setLevel(level)


class _Classified(nn.Module):
    def __init__(self, model: SequenceClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(ids, lengths)
        return (logits / self.model.config.temperature).softmax(1), logits


class _Step(nn.Module):
    """One token of a causal language model, its state as single tensors."""

    def __init__(self, model: GenomeLM) -> None:
        super().__init__()
        self.model = model
        state = model.backbone.initial_state(1)
        self.sizes = [len(layer) for layer in state]

    def forward(self, ids: Int64[Tensor, " B"], recent: Int64[Tensor, "B R"], *state: Tensor) -> tuple[Tensor, ...]:
        parts = iter(state)
        layers = tuple(tuple(next(parts) for _ in range(size)) for size in self.sizes)
        after = self.model.advance(ids[:, None], Carried(recent, layers))
        return after.logits[:, 0], after.carried.recent, *(part for layer in after.carried.layers for part in layer)


Export = tuple[nn.Module, tuple[Tensor, ...], tuple[list[str], list[str]], Any]
"""What is exported, an example of its inputs, the names of inputs and outputs, and which sizes are free."""


def _of_classifier(model: SequenceClassifier) -> Export:
    batch, length = _TRACED
    ids = torch.full((batch, length), tokens.FIRST_BASE)
    shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    names = ["ids", "lengths"], ["probabilities", "logits"]
    return _Classified(model), (ids, torch.full((batch,), length)), names, shapes


def _of_lm(model: GenomeLM, step: bool) -> Export:
    batch, length = _TRACED
    ids = torch.full((batch, length), tokens.FIRST_BASE)
    if not step:
        return model, (ids,), (["ids"], ["logits"]), ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    if not model.backbone.config.causal:
        raise UserError("a model that looks both ways cannot go step by step", fix="leave out --step")
    state = [part for layer in model.backbone.initial_state(batch) for part in layer]
    if growing := {"attention", "hyena"} & set(model.backbone.config.layers):
        raise UserError(f"the state of {growing.pop()} grows with every token", fix="leave out --step")
    states = [f"state_{number}" for number in range(len(state))]
    names = ["ids", "recent", *states], ["logits", "new_recent", *(f"new_{name}" for name in states)]
    free = {0: Dim.DYNAMIC}
    return _Step(model), (ids[:, 0], beginning(batch), *state), names, (free, free, tuple(free for _ in state))


def beginning(batch: int) -> Int64[Tensor, "B 16"]:
    """What `recent` is before the first token."""
    return torch.full((batch, LONG_ORDER), tokens.PAD)


def _about(model: GenomeLM | SequenceClassifier, step: bool) -> dict[str, str]:
    values: dict[str, Any] = {"vocabulary": tokens.VOCAB, "versions": versions()}
    if isinstance(model, SequenceClassifier):
        config = model.config
        values |= {"kind": "classifier", "classes": config.classes, "window": config.window}
    else:
        values |= {"kind": "language model, one token" if step else "language model"}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
