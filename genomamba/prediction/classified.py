"""From windows to prediction rows: windows are scored buffer by buffer, and rows come in the windows' order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from genomamba.classifier.typicality import MeanTypicality
from genomamba.prediction.predictor import Aggregation, Predictor, RecordAverage
from genomamba.prediction.record_windows import RecordWindow
from genomamba.prediction.rows import Least, Predictions, decide
from genomamba.prediction.stopping import as_far_as_read
from mamba_data_prep.errors import UserError

MIN_BASES = 16
"""Windows with fewer known bases than this are not scored: there is nothing in them to tell classes apart."""
_BUFFER_BASES = 2**20
_BUFFER_WINDOWS = 2**15


def classify_windows(
    windows: Iterable[RecordWindow],
    predictor: Predictor,
    *,
    per_window: bool = False,
    least: Least | None = None,
    aggregate: Aggregation = "mean",
    min_bases: int = MIN_BASES,
    regions: bool = False,
) -> Iterator[Predictions]:
    """Prediction rows in the order of the windows, which are held back only as far as a buffer of some 1 Mb.

    Where the windows end in a `UserError`, the rows of those before it are given first.

    Args:
        windows: of all records, in order.
        predictor: the classifier.
        per_window: a row for each window rather than for each record.
        least: what a row needs to be given a class; nothing by default.
        aggregate: how a record's windows are averaged.
        min_bases: windows with fewer known bases are not scored.
        regions: whether the windows are of regions, whose rows have names.
    """
    least = least or Least()
    table = (
        _WindowRows(predictor, least, regions=regions)
        if per_window
        else _RecordRows(predictor, least, aggregate, regions=regions)
    )
    buffer: list[RecordWindow] = []
    held = 0
    refused: list[UserError] = []
    for window in as_far_as_read(windows, refused):
        buffer.append(window)
        held += len(window.ids)
        if held >= _BUFFER_BASES or len(buffer) >= _BUFFER_WINDOWS:
            yield table.rows(buffer, *_scored(buffer, predictor, min_bases))
            buffer, held = [], 0
    if buffer:
        yield table.rows(buffer, *_scored(buffer, predictor, min_bases))
    if refused:
        raise refused[0]


def _scored(buffer: list[RecordWindow], predictor: Predictor, min_bases: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (M, C) and typicality (M,) of the buffered windows; NaN where there are too few known bases."""
    typicality = np.full(len(buffer), np.nan)
    probabilities = np.full((len(buffer), len(predictor.model.config.classes)), np.nan)
    enough = [i for i, window in enumerate(buffer) if window.known >= min_bases]
    if enough:
        windows = [buffer[i].ids for i in enough]
        probabilities[enough], typicality[enough] = predictor.probabilities(windows), predictor.typicality(windows)
    return probabilities, typicality


def _why_unscored(bases: int, known: int) -> str:
    if known == 0:
        return "no known base" if bases else "no bases"
    return "too short" if known == bases else "too few known bases"


class _WindowRows:
    """One row a window."""

    def __init__(self, predictor: Predictor, least: Least, *, regions: bool) -> None:
        self._classes = predictor.model.config.classes
        self._both_strands, self._regions = predictor.both_strands, regions
        self._least = least

    def rows(self, windows: list[RecordWindow], probabilities: np.ndarray, typicality: np.ndarray) -> Predictions:
        """The rows of these windows."""
        return self._made(windows, [w.start for w in windows], [w.known for w in windows], probabilities, typicality)

    def _made(
        self,
        windows: list[RecordWindow],
        starts: list[int],
        known: list[int],
        probabilities: np.ndarray,
        typicality: np.ndarray,
    ) -> Predictions:
        """A row for each of some windows, with which it ends."""
        start, end = np.array(starts, np.int64), np.array([w.end for w in windows], np.int64)
        nothing = np.isnan(probabilities[:, 0]).tolist()
        lengths = (end - start).tolist()
        why = [_why_unscored(n, k) if none else "" for n, k, none in zip(lengths, known, nothing, strict=True)]
        predicted, reason = decide(self._classes, probabilities, typicality, self._least, why)
        return Predictions(
            self._classes, [w.record for w in windows], start, end, [self._strand(w) for w in windows],
            1 - np.array(known, np.int64) / np.maximum(end - start, 1), predicted, probabilities, reason, typicality,
            [w.label or "" for w in windows] if self._regions else None,
        )  # fmt: skip

    def _strand(self, window: RecordWindow) -> str:
        return "." if self._both_strands else "-" if window.strand == "-" else "+"


class _RecordRows(_WindowRows):
    """One row a record or region, made when its last window is scored; a record may span many buffers."""

    def __init__(self, predictor: Predictor, least: Least, aggregate: Aggregation, *, regions: bool) -> None:
        super().__init__(predictor, least, regions=regions)
        self._aggregate: Aggregation = aggregate
        self._open: RecordAverage | None = None
        self._known = 0
        self._typical = MeanTypicality()

    def rows(self, windows: list[RecordWindow], probabilities: np.ndarray, typicality: np.ndarray) -> Predictions:
        """The rows of the records that end with one of these windows."""
        ends: list[RecordWindow] = []
        known: list[int] = []
        averages: list[np.ndarray] = []
        typical: list[float] = []
        scores = zip(windows, probabilities, ~np.isnan(probabilities[:, 0]), typicality.tolist(), strict=True)
        for window, p, scored, like in scores:
            whole = self._open is None and window.is_last
            if not whole:
                self._open = self._open or RecordAverage(len(self._classes), self._aggregate)
                self._known += window.new_known
                if scored:
                    self._open.add(p, window.known)
            self._typical.add(like, window.known)
            if window.is_last:
                ends.append(window)
                known.append(window.known if whole else self._known)
                averages.append(p if self._open is None else self._open.result())
                typical.append(self._typical.result())
                self._open, self._known, self._typical = None, 0, MeanTypicality()
        table = np.array(averages).reshape(len(ends), len(self._classes))
        return self._made(ends, [window.first for window in ends], known, table, np.array(typical))
