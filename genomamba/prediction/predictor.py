"""From windows of tokens to class probabilities, and from windows to records. No files are touched here.

Shapes: `M` windows, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genomamba import tokens
from genomamba.classifier.metrics import softmax
from genomamba.classifier.network import SequenceClassifier
from mamba_data_prep.errors import UserError

DEFAULT_BATCH_BASES = 2**16
Aggregation = Literal["mean", "log-mean"]


@dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier ready to be asked.

    Args:
        model: in evaluation mode, on `device`.
        batch_bases: most bases, padding included, that go through the model at a time (at least one window does).
        both_strands: average each window's probabilities with those of its reverse complement.
        on_batch: called after every batch, for showing progress.
    """

    model: SequenceClassifier
    device: torch.device
    batch_bases: int = DEFAULT_BATCH_BASES
    both_strands: bool = False
    on_batch: Callable[[], object] | None = None

    def probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Class probabilities (M, C) of windows of token ids, in the order given.

        Windows are sorted by length for the computation, so that little is padded.
        """
        temperature = self.model.config.temperature
        given = softmax(self.logits(windows), temperature)
        if not self.both_strands:
            return given
        return (given + softmax(self.logits([tokens.reverse_complement(w) for w in windows]), temperature)) / 2

    def logits(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits (M, C), before the temperature, of windows of token ids, in the order given."""
        result = np.empty((len(windows), len(self.model.config.classes)), np.float32)
        with torch.inference_mode():
            for chosen in length_batches([len(w) for w in windows], self.batch_bases):
                ids, lengths = padded([windows[i] for i in chosen])
                result[chosen] = self._run(ids, lengths)
                if self.on_batch is not None:
                    self.on_batch()
        return result

    def typicality(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """How typical of the training data windows of token ids are, (M,); NaN where the model cannot tell."""
        known = self.model.typicality
        return np.full(len(windows), np.nan) if known is None else known.of_windows(windows)

    def _run(self, ids: Tensor, lengths: Tensor) -> np.ndarray:
        try:
            return self.model(ids.to(self.device), lengths.to(self.device)).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            fewer = f"give classify fewer bases at a time (--batch-bases {ids.numel() // 2})"
            raise UserError(
                "the device's memory does not hold a batch",
                found=f"{ids.shape[0]:,} windows of up to {ids.shape[1]:,} bases",
                fix=f"{fewer if len(ids) > 1 else 'give classify a smaller --window'}, or add --device cpu",
            ) from error


def length_batches(lengths: Sequence[int], batch_bases: int) -> Iterator[np.ndarray]:
    """Indexes of windows of like length, longest first, whose padded size stays within `batch_bases`."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        count = max(batch_bases // max(lengths[order[start]], 1), 1)
        yield order[start : start + count]
        start += count


def padded(windows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Token ids (M, longest) padded on the right, and lengths (M,)."""
    lengths = np.array([len(w) for w in windows], np.int64)
    ids = np.full((len(windows), int(lengths.max())), tokens.PAD, np.uint8)
    for row, window in zip(ids, windows, strict=True):
        row[: len(window)] = window
    return torch.from_numpy(ids), torch.from_numpy(lengths)


class RecordAverage:
    """Averages the probabilities of one record's windows, weighted by their known bases.

    `mean` averages probabilities; `log-mean` averages their logarithms and normalises, so that windows vote like
    independent observations tempered to one.
    """

    def __init__(self, n_classes: int, how: Aggregation) -> None:
        self.how: Aggregation = how
        self._sum = np.zeros(n_classes)
        self._weight = 0.0

    def add(self, probabilities: np.ndarray, weight: int) -> None:
        """Takes one window's probabilities (C,) and its number of known bases."""
        self._sum += weight * (np.log(np.maximum(probabilities, 1e-30)) if self.how == "log-mean" else probabilities)
        self._weight += weight

    def result(self) -> np.ndarray:
        """The record's probabilities (C,); NaN when no window was scored."""
        if self._weight == 0:
            return np.full_like(self._sum, np.nan)
        mean = self._sum / self._weight
        return softmax(mean[None])[0] if self.how == "log-mean" else mean / mean.sum()
