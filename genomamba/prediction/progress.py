"""How far the reading of a file is."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console

from genomamba.prediction.record_windows import RecordWindow
from genomamba.prediction.shown_progress import ShownProgress
from mamba_data_prep.bytestream import is_regular
from mamba_data_prep.genomes.fasta import FastaPiece
from mamba_training.progress import clock


class ReadingProgress(ShownProgress):
    """Counts what is read and what is done with it, and shows it on stderr.

    Args:
        fasta: the file that is read; how many bases it holds is estimated from its size while it is read.
        total: the number of bases, where it is known from the beginning.
        console: where to write; stderr by default.
        done: what is done with the records, a word.
    """

    def __init__(
        self, fasta: Path, total: int | None = None, console: Console | None = None, *, done: str = "classified"
    ) -> None:
        super().__init__(console)
        self.records = self.windows_seen = 0
        self.bases: float | int = 0
        """Records, bases and windows that have been given to the model, or passed over."""
        self._total, self._word = total, done
        self._size = fasta.stat().st_size if str(fasta) != "-" and is_regular(fasta) else None
        self._raw = self._read = 0
        self._sample = (0, 0)  # bytes of the file that are used up, and the bases that they held
        self._ended = False
        self._done: tuple[int, float | int] = (0, 0)  # records and bases whose rows are written
        self._first: float | int = 0  # bases that an earlier run had classified

    def on_raw(self, block: bytes) -> None:
        """Takes note of bytes of the file as they lie on the disk; all before these are used up."""
        self._sample = self._raw, self._read
        self._raw += len(block)

    def pieces(self, pieces: Iterable[FastaPiece]) -> Iterator[FastaPiece]:
        """The same pieces, whose bases are counted as read."""
        for piece in pieces:
            self._read += len(piece.sequence)
            self.tick()
            yield piece
        self._ended = True

    def windows(self, windows: Iterable[RecordWindow]) -> Iterator[RecordWindow]:
        """The same windows, whose records and bases are counted; bases where windows overlap count once."""
        covered = 0
        for window in windows:
            covered = window.start if window.start == window.first else covered
            self.bases += window.end - covered
            self.windows_seen += 1
            self.records += window.is_last
            covered = window.end
            yield window

    def advance(self, bases: float | int, records: int = 0) -> None:
        """Counts what was done where there are no windows; half of the work on a base counts as half a base."""
        self.bases += bases
        self.records += records
        self.written()

    def passed_over(self) -> None:
        """Says that all windows so far were classified by an earlier run."""
        self.written()
        self._first, self._began = self.bases, time.monotonic()

    def written(self) -> None:
        """Says that the rows of all windows so far are written."""
        self._done = self.records, self.bases
        self.tick()

    def words(self, now: float) -> str:
        """Records and bases done, the rate since the start, and the time that the rest will take at this rate."""
        records, bases = self._done
        rate = (bases - self._first) / max(now - self._began, 1e-9)
        total = self._expected()
        about = "" if self._ended or self._total is not None else "about "
        of = "" if total is None else f" of {about}{total / 1e6:,.1f} Mb"
        left = "" if total is None else f", {clock((total - bases) / rate if rate else math.inf)} left"
        return f"{self._word} {records:,} records, {bases / 1e6:,.1f} Mb{of}, {rate / 1e6:,.3f} Mb/s{left}"

    def _expected(self) -> float | int | None:
        """Bases in all: as was said or read, or as many as the rest of the file will hold; None while that is open."""
        raw, read = self._sample
        if self._ended or self._total is not None:
            return self._read if self._ended else self._total
        if self._size is None or not raw or not read:
            return None
        return max(read * max(self._size / raw, 1.0), self._done[1])
