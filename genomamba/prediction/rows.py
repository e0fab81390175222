"""The prediction table: one row a record or a window, in the input's order, with coordinates and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mamba_data_prep.errors import UserError

ABSTAIN = "abstain"
DECIMALS = 6
"""Of the numbers in tables."""
LOW = "confidence below "
UNLIKE = "typicality below "
Column = Sequence[object] | np.ndarray


@runtime_checkable
class Rows(Protocol):
    """Rows of a table, in the input's order; also without a row it tells what its columns are."""

    def __len__(self) -> int:
        """How many rows."""
        ...

    @property
    def seq_id(self) -> Sequence[str]:
        """Record of each row."""
        ...

    @property
    def start(self) -> np.ndarray:
        """First base of each row, 0-based."""
        ...

    @property
    def end(self) -> np.ndarray:
        """One beyond each row's last base."""
        ...

    def columns(self) -> dict[str, Column]:
        """The table, in the order in which it is written: texts as lists, numbers as arrays."""
        ...

    def track(self, name: str | None) -> np.ndarray:
        """The value of each row that a track shows; NaN where there is none.

        Raises:
            UserError: there is no track of this name.
        """
        ...


@dataclass(frozen=True, eq=False)
class Predictions:
    """Rows of the table, by column.

    Attributes:
        classes: names, in the order of `probabilities`' columns.
        seq_id: record ids; not necessarily unique.
        start, end: int64, 0-based half-open, base pairs in the record.
        strand: of each row "+" where the sequence was read as given, "-" where from the other strand, "." where both
            strands were averaged.
        n_frac: float64, share of letters other than A, C, G, T.
        predicted: a class, or "abstain".
        probabilities: (M, C) float64; a row of NaN where nothing could be scored.
        reason: why a row abstains, otherwise empty.
        typicality: (M,) float64, how typical of the training data each row is; NaN where the model cannot tell, see
            `genomamba.classifier.typicality`.
        name: names of the regions in a BED file, or None where records are classified.
    """

    classes: tuple[str, ...]
    seq_id: Sequence[str]
    start: np.ndarray
    end: np.ndarray
    strand: Sequence[str]
    n_frac: np.ndarray
    predicted: Sequence[str]
    probabilities: np.ndarray
    reason: Sequence[str]
    typicality: np.ndarray
    name: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.seq_id)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the likeliest class, (M,); NaN where nothing could be scored."""
        return self.probabilities.max(1) if len(self) else np.zeros(0)

    @property
    def margin(self) -> np.ndarray:
        """By how much the likeliest class is likelier than the next, as tables say it, (M,); NaN where nothing was."""
        if not len(self):
            return np.zeros(0)
        second, first = np.sort(self.probabilities.round(DECIMALS), axis=1)[:, -2:].T
        return first - second

    def track(self, name: str | None) -> np.ndarray:
        """The probability of one class, the last one by default.

        Raises:
            UserError: there is no such class.
        """
        name = self.classes[-1] if name is None else name
        if name not in self.classes:
            raise UserError("the model has no such class", found=name, accepted=", ".join(self.classes))
        return self.probabilities[:, self.classes.index(name)]

    def columns(self) -> dict[str, Column]:
        """The table, in the order in which it is written."""
        named: dict[str, Column] = {
            "seq_id": self.seq_id,
            "start": self.start,
            "end": self.end,
            "strand": self.strand,
            "length": self.end - self.start,
            "n_frac": self.n_frac,
            "predicted": self.predicted,
            "confidence": self.confidence,
        }
        named.update({f"prob_{name}": self.probabilities[:, i] for i, name in enumerate(self.classes)})
        last = {} if self.name is None else {"name": self.name}
        return {**named, "margin": self.margin, "typicality": self.typicality, "reason": self.reason, **last}


@dataclass(frozen=True)
class Least:
    """What a row needs to be given a class; with less it abstains.

    Attributes:
        confidence: probability of its likeliest class.
        typicality: of the training data, see `genomamba.classifier.typicality`.
    """

    confidence: float = 0.0
    typicality: float = 0.0


def no_predictions(classes: tuple[str, ...], *, regions: bool = False) -> Predictions:
    """A table of these classes without a row, of regions or of records."""
    whole, real, names = np.zeros(0, np.int64), np.zeros(0), [] if regions else None
    return Predictions(classes, [], whole, whole, [], real, [], np.zeros((0, len(classes))), [], real, names)


def decide(
    classes: tuple[str, ...],
    probabilities: np.ndarray,
    typicality: np.ndarray,
    least: Least,
    unscored: Sequence[str],
) -> tuple[list[str], list[str]]:
    """The predicted class or "abstain" of each row, and why.

    Args:
        classes: names, in the order of the columns.
        probabilities: (M, C), rows of NaN where nothing was scored.
        typicality: (M,), NaN where it is not known.
        least: what a row needs to be given a class.
        unscored: for each row why it was not scored, or an empty text.
    """
    if not len(unscored):
        return [], []
    best = np.nan_to_num(probabilities, nan=-1.0).argmax(1)
    sure = probabilities.max(1) >= least.confidence  # False for NaN
    foreign = typicality < least.typicality  # False for NaN
    predicted = [classes[i] if ok else ABSTAIN for i, ok in zip(best.tolist(), (sure & ~foreign).tolist(), strict=True)]
    low, unlike = f"{LOW}{least.confidence:g}", f"{UNLIKE}{least.typicality:g}"
    reasons = [
        why or (unlike if other else "" if ok else low)
        for why, ok, other in zip(unscored, sure.tolist(), foreign.tolist(), strict=True)
    ]
    return predicted, reasons
