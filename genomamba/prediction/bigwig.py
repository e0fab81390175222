"""Tracks in bigWig: one value along the records, as a genome browser shows it.

A bigWig's header names every record with its length, so a track waits in a temporary file, at 16 bytes a row, until the
last row is known. Rows that overlap each keep the part before the next one begins; a stretch without a value has none.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from genomamba.prediction.rows import Rows
from mamba_data_prep.errors import UserError

_ROW = np.dtype([("record", np.int32), ("start", np.uint32), ("end", np.uint32), ("value", np.float32)])
_BLOCK = 2**16


class BigWigTrack:
    """Takes rows in order and writes them as one bigWig.

    Args:
        stream: where the finished file goes.
        nothing: a table of the kind without a row.
        track: which value is shown, as the rows name it.
        lengths: bases of each record; by default a record ends with its last row.

    Raises:
        UserError: there is no such track.
    """

    def __init__(
        self, stream: IO[bytes], nothing: Rows, track: str | None = None, lengths: Mapping[str, int] | None = None
    ) -> None:
        nothing.track(track)
        self._stream, self._track, self._known = stream, track, lengths or {}
        self._lengths: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._held = tempfile.TemporaryFile(dir=Path(stream.name).parent)  # noqa: SIM115  (closed by `close`)
        self._last = np.zeros(0, _ROW)  # the last row, whose own part ends where the next one begins
        self._any = False

    def write(self, rows: Rows) -> None:
        """Takes note of some rows' values.

        Raises:
            UserError: two records of the file have the same id, which a bigWig cannot tell apart.
        """
        if not len(rows):
            return
        part = np.zeros(len(rows), _ROW)
        part["record"] = self._records(rows.seq_id)
        part["start"], part["end"], part["value"] = rows.start, rows.end, rows.track(self._track)
        part = np.concatenate([self._last, part])
        self._note_lengths(part)
        _keep_own_ends(part, list(self._numbers))
        self._last = part[-1:].copy()
        self._put(part[:-1])

    def take_over(self, path: Path) -> None:
        """Refuses: a bigWig does not tell which rows its values come from."""
        raise ValueError(f"a bigWig cannot be added to: {path}")

    def close(self) -> None:
        """Writes the file into the stream.

        Raises:
            UserError: no row has a value.
        """
        import pybigtools

        self._put(self._last)
        with self._held:
            if not self._any:
                raise UserError(
                    "no window was scored, and a bigWig cannot be empty",
                    fix="write a .tsv to see why each record abstains",
                )
            with tempfile.TemporaryDirectory(prefix=".bigwig-", dir=Path(self._stream.name).parent) as folder:
                path = Path(folder) / "track.bw"  # the library goes by the name's extension
                pybigtools.open(str(path), "w").write({**self._lengths, **self._whole_lengths()}, self._values())
                with path.open("rb") as finished:
                    shutil.copyfileobj(finished, self._stream)

    def _whole_lengths(self) -> dict[str, int]:
        return {name: self._known[name] for name in self._numbers if name in self._known}

    def _records(self, names: Sequence[str]) -> list[int]:
        numbers = []
        for name in names:
            number = self._numbers.setdefault(name, len(self._numbers))
            if number != len(self._numbers) - 1:
                raise _repeated(name)
            numbers.append(number)
        return numbers

    def _note_lengths(self, part: np.ndarray) -> None:
        names = list(self._numbers)
        for number in np.unique(part["record"]).tolist():
            end = int(part["end"][part["record"] == number].max())
            self._lengths[names[number]] = max(end, self._lengths.get(names[number], 0))

    def _put(self, part: np.ndarray) -> None:
        self._any = self._any or not np.isnan(part["value"]).all()
        self._held.write(part.tobytes())

    def _values(self) -> Iterator[tuple[str, int, int, float]]:
        names = list(self._numbers)
        self._held.seek(0)
        while block := self._held.read(_BLOCK * _ROW.itemsize):
            part = np.frombuffer(block, _ROW)
            part = part[~np.isnan(part["value"])]
            columns = (part[name].tolist() for name in ("record", "start", "end", "value"))
            for record, start, end, value in zip(*columns, strict=True):
                yield names[record], start, end, value


def _keep_own_ends(part: np.ndarray, names: list[str]) -> None:
    """Ends each row at the next one of the same record, if that begins sooner."""
    same = part["record"][1:] == part["record"][:-1]
    backwards = np.flatnonzero(same & (part["start"][1:] <= part["start"][:-1]))
    if len(backwards):
        raise _repeated(names[part["record"][backwards[0]]])
    part["end"][:-1][same] = np.minimum(part["end"][:-1][same], part["start"][1:][same])


def _repeated(name: str) -> UserError:
    return UserError(
        "two records have the same id, which a bigWig cannot tell apart", record=name, fix="rename one, or write a .bed"
    )
