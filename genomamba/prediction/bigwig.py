"""Prediction tracks in bigWig: the probability of one class along the records, as a genome browser shows it.

A bigWig's header names every record with its length, so a track is held back until the last window is known, at 16
bytes a window. Windows that overlap each keep the part before the next one begins; a stretch without a score has no
value.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from genomamba.prediction.rows import Predictions
from mamba_data_prep.errors import UserError

_WINDOW = np.dtype([("record", np.int32), ("start", np.uint32), ("end", np.uint32), ("value", np.float32)])


class BigWigTrack:
    """Takes windows in order and writes them as one bigWig.

    Args:
        stream: where the finished file goes.
        classes: names, in the order of the probabilities' columns.
        track: the class whose probability is shown; the last one by default.

    Raises:
        UserError: there is no such class.
    """

    def __init__(self, stream: IO[bytes], classes: tuple[str, ...], track: str | None = None) -> None:
        track = classes[-1] if track is None else track
        if track not in classes:
            raise UserError("the model has no such class", found=track, accepted=", ".join(classes))
        self._stream, self._column = stream, classes.index(track)
        self._numbers: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    def write(self, rows: Predictions) -> None:
        """Takes note of some windows' probabilities.

        Raises:
            UserError: two records of the file have the same id, which a bigWig cannot tell apart.
        """
        part = np.zeros(len(rows), _WINDOW)
        for i, name in enumerate(rows.seq_id):
            number = self._numbers.setdefault(name, len(self._numbers))
            if number != len(self._numbers) - 1:
                raise _repeated(name)
            part["record"][i] = number
        part["start"], part["end"], part["value"] = rows.start, rows.end, rows.probabilities[:, self._column]
        self._parts.append(part)

    def take_over(self, path: Path) -> None:
        """Refuses: a bigWig does not tell which windows its values come from."""
        raise ValueError(f"a bigWig cannot be added to: {path}")

    def close(self) -> None:
        """Writes the file into the stream.

        Raises:
            UserError: no window was scored, or a record begins twice.
        """
        import pybigtools

        windows = np.concatenate([np.zeros(0, _WINDOW), *self._parts])
        if np.isnan(windows["value"]).all():
            raise UserError(
                "no window was scored, and a bigWig cannot be empty", fix="write a .tsv to see why each record abstains"
            )
        names, ends = list(self._numbers), _own_ends(windows, list(self._numbers))
        lengths = np.zeros(len(names), np.int64)
        np.maximum.at(lengths, windows["record"], windows["end"])
        with tempfile.TemporaryDirectory(prefix=".bigwig-", dir=Path(self._stream.name).parent) as folder:
            path = Path(folder) / "track.bw"  # the library goes by the name's extension
            values = _values(windows, ends, names)
            pybigtools.open(str(path), "w").write(dict(zip(names, lengths.tolist(), strict=True)), values)
            with path.open("rb") as finished:
                shutil.copyfileobj(finished, self._stream)


def _own_ends(windows: np.ndarray, names: list[str]) -> np.ndarray:
    """Where each window's own part ends: at the next window of the same record, if that begins sooner."""
    ends = windows["end"].copy()
    same = windows["record"][1:] == windows["record"][:-1]
    backwards = np.flatnonzero(same & (windows["start"][1:] <= windows["start"][:-1]))
    if len(backwards):
        raise _repeated(names[windows["record"][backwards[0]]])
    ends[:-1][same] = np.minimum(ends[:-1][same], windows["start"][1:][same])
    return ends


def _values(windows: np.ndarray, ends: np.ndarray, names: list[str]) -> Iterator[tuple[str, int, int, float]]:
    scored = ~np.isnan(windows["value"])
    columns = (windows[name][scored].tolist() for name in ("record", "start", "value"))
    for record, start, value, end in zip(*columns, ends[scored].tolist(), strict=True):
        yield names[record], start, end, value


def _repeated(name: str) -> UserError:
    return UserError(
        "two records have the same id, which a bigWig cannot tell apart", record=name, fix="rename one, or write a .bed"
    )
