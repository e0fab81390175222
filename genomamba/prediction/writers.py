"""Writing predictions chunk by chunk: TSV, CSV, Parquet, JSON lines, BED and bigWig, chosen by the file's name.

Numbers are written with six decimals; a probability that does not exist is an empty field, or null. BED holds one line
a window (0-based half-open): class as name, confidence as score (0 to 1000), a colour a class, grey for "abstain".
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np

from genomamba.prediction.bigwig import BigWigTrack
from genomamba.prediction.rows import ABSTAIN, Predictions
from mamba_data_prep.atomic import atomic_write, clean_orphans
from mamba_data_prep.errors import UserError

FORMATS = (".tsv", ".csv", ".parquet", ".jsonl", ".bed", ".bw")
OF_WINDOWS = (".bed", ".bw")
"""Formats that always hold windows, not records."""
_DECIMALS = 6
_GREY = "128,128,128"
_COLOURS = (
    "31,119,180", "255,127,14", "44,160,44", "214,39,40", "148,103,189",
    "140,86,75", "227,119,194", "188,189,34", "23,190,207",
)  # fmt: skip
_ROWS_A_GROUP = 65_536


@runtime_checkable
class TableWriter(Protocol):
    """Takes chunks of a table in order."""

    def write(self, rows: Predictions) -> None:
        """Appends rows."""
        ...

    def close(self) -> None:
        """Writes what is still held back; the stream itself stays open."""
        ...


def output_format(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        UserError: none of those that can be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(
            "The output's format is not known from its name", path=path, found=suffix or "no extension",
            accepted=", ".join(FORMATS), fix="name the file, for example, predictions.tsv",
        )  # fmt: skip
    return suffix


@contextmanager
def table_writer(path: Path, classes: tuple[str, ...], track: str | None = None) -> Iterator[TableWriter]:
    """A writer whose file appears under its name only when the block ends without an error.

    What a killed run left in the folder is removed first. `track` is the class that a bigWig shows, see `BigWigTrack`.
    """
    suffix = output_format(path)
    clean_orphans(path.parent)
    with atomic_write(path, "wb" if suffix in (".parquet", ".bw") else "w") as stream:
        writer = BigWigTrack(stream, classes, track) if suffix == ".bw" else _WRITERS[suffix](stream, classes)
        try:
            yield writer
        except BaseException:
            with suppress(Exception):  # Parquet must not outlive its stream
                writer.close()
            raise
        writer.close()


class _Delimited:
    """TSV and CSV; a field that holds the delimiter, a quote or a line end is quoted as RFC 4180 says."""

    def __init__(self, stream: IO[str], classes: tuple[str, ...], delimiter: str) -> None:
        self._rows = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        self._rows.writerow(_empty(classes).columns())

    def write(self, rows: Predictions) -> None:
        self._rows.writerows(zip(*(_as_text(column) for column in rows.columns().values()), strict=True))

    def close(self) -> None:
        """Nothing is held back."""


class _JsonLines:
    def __init__(self, stream: IO[str], classes: tuple[str, ...]) -> None:
        self._stream = stream

    def write(self, rows: Predictions) -> None:
        columns = rows.columns()
        values = zip(*(_as_json(column) for column in columns.values()), strict=True)
        self._stream.writelines(
            json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False) + "\n"
            for row in values
        )

    def close(self) -> None:
        """Nothing is held back."""


class _Parquet:
    def __init__(self, stream: IO[bytes], classes: tuple[str, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"start": pa.int64(), "end": pa.int64(), "length": pa.int64()}
        texts = {"seq_id", "strand", "predicted", "reason"}
        names = list(_empty(classes).columns())
        self._schema = pa.schema([(n, pa.string() if n in texts else kinds.get(n, pa.float64())) for n in names])
        self._writer = pq.ParquetWriter(stream, self._schema)
        self._held: list[Any] = []
        self._n_held = 0

    def write(self, rows: Predictions) -> None:
        import pyarrow as pa

        columns = rows.columns().values()
        arrays = [
            pa.array(column, type=field.type, from_pandas=isinstance(column, np.ndarray))
            for field, column in zip(self._schema, columns, strict=True)
        ]
        self._held.append(pa.Table.from_arrays(arrays, schema=self._schema))
        self._n_held += len(rows)
        if self._n_held >= _ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._writer.write_table(pa.concat_tables(self._held))
        self._held, self._n_held = [], 0


class _Bed:
    def __init__(self, stream: IO[str], classes: tuple[str, ...]) -> None:
        self._stream = stream
        self._colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(classes)} | {ABSTAIN: _GREY}

    def write(self, rows: Predictions) -> None:
        scores = np.round(np.nan_to_num(rows.confidence) * 1000).astype(int).tolist()
        fields = zip(rows.seq_id, rows.start.tolist(), rows.end.tolist(), rows.predicted, scores, strict=True)
        self._stream.writelines(
            f"{record}\t{start}\t{end}\t{_bed_name(name)}\t{score}\t{rows.strand}\t{start}\t{end}\t{self._colour[name]}\n"
            for record, start, end, name, score in fields
        )

    def close(self) -> None:
        """Nothing is held back."""


_WRITERS: dict[str, Callable[[IO[Any], tuple[str, ...]], TableWriter]] = {
    ".tsv": lambda stream, classes: _Delimited(stream, classes, "\t"),
    ".csv": lambda stream, classes: _Delimited(stream, classes, ","),
    ".jsonl": _JsonLines,
    ".parquet": _Parquet,
    ".bed": _Bed,
}


def _empty(classes: tuple[str, ...]) -> Predictions:
    none = np.zeros(0, np.int64)
    return Predictions(classes, [], none, none, "+", np.zeros(0), [], np.zeros((0, len(classes))), [])


def _bed_name(name: str) -> str:
    """BED fields hold no white space."""
    return "_".join(name.split()) or "_"


def _as_text(column: Sequence[object] | np.ndarray) -> Sequence[object]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return ["" if value != value else f"{value:.{_DECIMALS}f}" for value in column.tolist()]
    return column.tolist() if isinstance(column, np.ndarray) else column


def _as_json(column: Sequence[object] | np.ndarray) -> Sequence[object]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return [None if value != value else round(value, _DECIMALS) for value in column.tolist()]
    return column.tolist() if isinstance(column, np.ndarray) else column
