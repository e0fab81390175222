"""What a model remembers, as tables: how long its channels hold a base, and after which bases its states open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Integer
from torch import Tensor

from genomamba import tokens
from genomamba.explanation.targets import ClassOdds, HiddenBases, Likelihood
from mamba_kernels.blocks.memory import LayerMemory, record_memory

WORD = 3
"""Bases of the words by which states are seen to open."""


def remembered(target: ClassOdds | HiddenBases | Likelihood, ids: Integer[Tensor, " L"]) -> list[LayerMemory]:
    """Steps and rates of all layers that select, while the model reads one sequence as it is given."""
    if isinstance(target, ClassOdds):
        classifier, lengths = target.model, torch.full((1,), len(ids), device=ids.device)
        return record_memory(list(target.layers), lambda: classifier.pooled(ids[None], lengths))
    model = target.model
    return record_memory(list(target.layers), lambda: model.embeddings(ids[None]))


def channel_table(memory: Sequence[LayerMemory], bases_a_position: int = 1) -> pd.DataFrame:
    """How long each channel of each layer holds a base, at the middle of the steps it takes.

    Args:
        memory: of a sequence.
        bases_a_position: bases behind one position of the network, the stride of a convolutional stem.

    Returns:
        A row a channel: `layer, channel, step` (its median), and `shortest, middle, longest`: bases after which 1/e is
        left of what its states hold, over its states.
    """
    rows = []
    for layer in memory:
        step = layer.steps[0].median(0).values
        held = layer.tokens(step).double().cpu().numpy() * bases_a_position
        rows.append(
            pd.DataFrame(
                {
                    "layer": layer.layer,
                    "channel": np.arange(len(step)),
                    "step": step.cpu().numpy(),
                    "shortest": held.min(1),
                    "middle": np.median(held, axis=1),
                    "longest": held.max(1),
                }
            )
        )
    columns = ["layer", "channel", "step", "shortest", "middle", "longest"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=pd.Index(columns))


def openness(memory: Sequence[LayerMemory], length: int, bases_a_position: int = 1) -> Float64[np.ndarray, "layers L"]:
    """How far each base opens each layer's states: log2 of its step over the channel's median, mean over the channels.

    Args:
        memory: of a sequence.
        length: its bases.
        bases_a_position: bases behind one position of the network.
    """
    rows = []
    for layer in memory:
        steps = layer.steps[0].double()
        opened = torch.log2(steps / steps.median(0).values).mean(1).cpu().numpy()
        rows.append(np.repeat(opened, bases_a_position)[:length])
    return np.stack(rows) if rows else np.zeros((0, length))


def word_table(
    opened: Float64[np.ndarray, "layers L"], ids: Integer[Tensor, " L"], layers: Sequence[int]
) -> pd.DataFrame:
    """The mean openness after each word of three bases.

    Args:
        opened: see `openness`.
        ids: the sequence's token ids.
        layers: numbers of the layers.

    Returns:
        A row a layer and word: `layer, word, openness, n` (times that the word was met).
    """
    base = ids.cpu().numpy().astype(np.int64) - tokens.FIRST_BASE
    known = (base >= 0) & (base < 4)
    words = np.zeros(max(0, len(base) - WORD + 1), np.int64)
    whole = np.ones(len(words), bool)
    for offset in range(WORD):
        words = 4 * words + np.where(known, base, 0)[offset : offset + len(words)]
        whole &= known[offset : offset + len(words)]
    names = [
        "".join("ACGT"[number // 4 ** (WORD - 1 - place) % 4] for place in range(WORD)) for number in range(4**WORD)
    ]
    seen = np.bincount(words[whole], minlength=4**WORD)
    rows = []
    for number, values in zip(layers, opened, strict=True):
        total = np.bincount(words[whole], values[WORD - 1 :][whole], 4**WORD)
        mean = np.divide(total, seen, out=np.full(4**WORD, np.nan), where=seen > 0)
        rows.append(pd.DataFrame({"layer": number, "word": names, "openness": mean, "n": seen}))
    columns = pd.Index(["layer", "word", "openness", "n"])
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
