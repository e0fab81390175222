"""Writing tables chunk by chunk: TSV, CSV, Parquet, JSON lines, BED, GFF3, bedGraph, bigWig, chosen by the file's name.

Text is compressed with gzip where the name ends in `.gz`; `-` is standard output, which takes TSV. Numbers are written
with six decimals; a number that does not exist is an empty field, or null. BED holds one line a window (0-based
half-open): class as name, confidence as score (0 to 1000), a colour a class, grey for "abstain". GFF3 (1-based, both
ends inside) holds the same, with all probabilities as attributes. bedGraph and bigWig hold one value a row, and nothing
where there is none.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol, runtime_checkable
from urllib.parse import quote

import numpy as np

from genomamba.prediction.bigwig import BigWigTrack
from genomamba.prediction.rows import ABSTAIN, DECIMALS, Predictions, Rows
from genomamba.prediction.stopping import InputRefused
from mamba_data_prep.atomic import atomic_write, clean_orphans
from mamba_data_prep.errors import UserError

_TEXTS = (".tsv", ".csv", ".jsonl", ".bed", ".gff3")
FORMATS = (".tsv", ".csv", ".parquet", ".jsonl", ".bed", ".gff3", ".bw", *(f"{text}.gz" for text in _TEXTS))
OF_WINDOWS = (".bed", ".gff3", ".bw")
"""Formats that always hold windows, not records."""
TRACKS = (".bedgraph", ".bedgraph.gz", ".bw")
"""Formats of one value along the records."""
SCORE_FORMATS = (*(name for name in FORMATS if not name.startswith(OF_WINDOWS)), *TRACKS)
"""Formats of tables of any kind of rows."""
READABLE: Final = (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz", ".parquet")
"""Formats of predictions that hold all probabilities, and are read again."""
ALL_FORMATS = tuple(dict.fromkeys((*FORMATS, *SCORE_FORMATS)))
_SEQID = ".:^*$@!+_?-|"
"""What a GFF3 file's first column may hold beside letters and digits."""
_UNRESERVED = _SEQID + " /()[]<>#~'\"`{}\\"
_GREY = "128,128,128"
_COLOURS = (
    "31,119,180", "255,127,14", "44,160,44", "214,39,40", "148,103,189",
    "140,86,75", "227,119,194", "188,189,34", "23,190,207",
)  # fmt: skip
_ROWS_A_GROUP = 65_536


@runtime_checkable
class TableWriter(Protocol):
    """Takes chunks of a table in order."""

    def write(self, rows: Rows) -> None:
        """Appends rows to the table."""
        ...

    def take_over(self, path: Path) -> None:
        """Begins with the rows of a file of the same format, before anything is written."""
        ...

    def close(self) -> None:
        """Writes what is still held back; the stream itself stays open."""
        ...


def output_format(path: Path) -> str:
    """The format that a file's name asks for, one of `ALL_FORMATS`; that of `-`, standard output, is `.tsv`.

    Raises:
        UserError: none of those that can be written.
    """
    if str(path) == "-":
        return ".tsv"
    found = [ending for ending in ALL_FORMATS if path.name.lower().endswith(ending)]
    if not found:
        raise UserError(
            "the output's format is not known from its name", path=path, found=path.suffix or "no extension",
            accepted=", ".join(ALL_FORMATS), fix="name the file, for example, predictions.tsv",
        )  # fmt: skip
    return found[0]


@contextmanager
def table_writer(
    path: Path,
    nothing: Rows,
    track: str | None = None,
    *,
    lengths: Mapping[str, int] | None = None,
    keep_as: Callable[[], Path | None] = lambda: None,
) -> Iterator[TableWriter]:
    """A writer whose file appears under its name only when the block ends without an error.

    What a killed run left in the folder is removed first.

    Args:
        path: the file, or `-`.
        nothing: a table of the kind that is written, without a row.
        track: the value that a bigWig or bedGraph shows, as the rows name it.
        lengths: bases of each record, for a bigWig's header; by default a record ends with its last row.
        keep_as: asked, when `KeyboardInterrupt` or `InputRefused` stops the block, where the rows so far are kept, as
            a whole file.
    """
    ending = output_format(path)
    if str(path) == "-":
        with _standard_output() as text:
            yield _WRITERS[ending](text, nothing)
        return
    clean_orphans(path.parent)
    binary = ending.endswith(".gz") or ending in (".parquet", ".bw")
    with atomic_write(path, "wb" if binary else "w") as stream:
        writer = BigWigTrack(stream, nothing, track, lengths) if ending == ".bw" else _writer(ending, stream, nothing)
        try:
            yield writer
        except (KeyboardInterrupt, InputRefused):
            with suppress(UserError):  # a bigWig of nothing cannot be
                writer.close()
                _keep(stream, keep_as())
            raise
        except BaseException:
            with suppress(Exception):  # Parquet must not outlive its stream
                writer.close()
            raise
        writer.close()


def _keep(stream: IO[Any], path: Path | None) -> None:
    if path is not None:
        stream.flush()
        os.fsync(stream.fileno())
        os.replace(stream.name, path)


def _writer(ending: str, stream: IO[Any], nothing: Any) -> TableWriter:
    if ending.endswith(".gz"):
        return _Gzipped(stream, nothing, _WRITERS[ending.removesuffix(".gz")])
    return _WRITERS[ending](stream, nothing)


@contextmanager
def _standard_output() -> Iterator[io.TextIOWrapper]:
    """Standard output as UTF-8 text; what was written is passed on at once."""
    sys.stdout.flush()
    text = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n", write_through=True)
    try:
        yield text
        text.flush()
    finally:
        text.detach()


class _Gzipped:
    """A text format inside gzip, without a time, so that equal rows give equal files."""

    def __init__(self, stream: IO[bytes], nothing: Any, kind: Callable[[Any, Any], TableWriter]) -> None:
        zipped = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)
        self._text = io.TextIOWrapper(zipped, encoding="utf-8", newline="\n")
        self._writer = kind(self._text, nothing)

    def write(self, rows: Rows) -> None:
        self._writer.write(rows)

    def take_over(self, path: Path) -> None:
        self._writer.take_over(path)

    def close(self) -> None:
        """Ends the compressed data; the stream below stays open."""
        self._writer.close()
        self._text.close()


class _Delimited:
    """TSV and CSV; a field that holds the delimiter, a quote or a line end is quoted as RFC 4180 says."""

    def __init__(self, stream: io.TextIOBase, nothing: Rows, delimiter: str) -> None:
        self._stream, self._delimiter = stream, delimiter
        self._rows = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        self._rows.writerow(nothing.columns())

    def write(self, rows: Rows) -> None:
        self._rows.writerows(zip(*(_as_text(column) for column in rows.columns().values()), strict=True))

    def take_over(self, path: Path) -> None:
        _copy_lines(path, self._stream, header=self._delimiter)

    def close(self) -> None:
        """Does nothing: no row is held back."""


class _JsonLines:
    def __init__(self, stream: io.TextIOBase, nothing: Rows) -> None:
        self._stream = stream

    def write(self, rows: Rows) -> None:
        columns = rows.columns()
        values = zip(*(_as_json(column) for column in columns.values()), strict=True)
        self._stream.writelines(
            json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False) + "\n"
            for row in values
        )

    def take_over(self, path: Path) -> None:
        _copy_lines(path, self._stream)

    def close(self) -> None:
        """Does nothing: no row is held back."""


class _Parquet:
    def __init__(self, stream: IO[bytes], nothing: Rows) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = [
            (name, pa.from_numpy_dtype(column.dtype) if isinstance(column, np.ndarray) else pa.string())
            for name, column in nothing.columns().items()
        ]
        self._schema = pa.schema(kinds)
        self._writer = pq.ParquetWriter(stream, self._schema)
        self._held: list[Any] = []
        self._n_held = 0

    def write(self, rows: Rows) -> None:
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

    def take_over(self, path: Path) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                self._writer.write_table(file.read_row_group(group).cast(self._schema))

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._writer.write_table(pa.concat_tables(self._held))
        self._held, self._n_held = [], 0


class _Bed:
    def __init__(self, stream: io.TextIOBase, nothing: Predictions) -> None:
        self._stream = stream
        self._colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(nothing.classes)} | {ABSTAIN: _GREY}

    def write(self, rows: Rows) -> None:
        assert isinstance(rows, Predictions)
        scores = np.round(np.nan_to_num(rows.confidence) * 1000).astype(int).tolist()
        columns = (rows.seq_id, rows.start.tolist(), rows.end.tolist(), rows.predicted, scores, rows.strand)
        self._stream.writelines(
            f"{record}\t{start}\t{end}\t{_bed_name(name)}\t{score}\t{strand}\t{start}\t{end}\t{self._colour[name]}\n"
            for record, start, end, name, score, strand in zip(*columns, strict=True)
        )

    def take_over(self, path: Path) -> None:
        _copy_lines(path, self._stream)

    def close(self) -> None:
        """Does nothing: no row is held back."""


class _Gff3:
    """GFF3 1.26 of the Sequence Ontology: reserved characters are escaped as in URLs, our attributes in lower case."""

    def __init__(self, stream: io.TextIOBase, nothing: Predictions) -> None:
        self._stream = stream
        self._names = [f"prob_{quote(name, safe=_UNRESERVED)}" for name in nothing.classes]
        stream.write("##gff-version 3\n")

    def write(self, rows: Rows) -> None:
        assert isinstance(rows, Predictions)
        for number, record in enumerate(rows.seq_id):
            values = rows.probabilities[number]
            score = "." if np.isnan(values).any() else f"{values.max():.{DECIMALS}f}"
            parts = [f"Name={quote(rows.predicted[number], safe=_UNRESERVED)}"]
            if score != ".":
                parts += [f"{name}={value:.{DECIMALS}f}" for name, value in zip(self._names, values, strict=True)]
            if rows.reason[number]:
                parts.append(f"reason={quote(rows.reason[number], safe=_UNRESERVED)}")
            place = f"{quote(record, safe=_SEQID)}\tgenomamba\tregion\t{rows.start[number] + 1}\t{rows.end[number]}"
            self._stream.write(f"{place}\t{score}\t{rows.strand[number]}\t.\t{';'.join(parts)}\n")

    def take_over(self, path: Path) -> None:
        _copy_lines(path, self._stream, after="##gff-version")

    def close(self) -> None:
        """Does nothing: no row is held back."""


class _BedGraph:
    def __init__(self, stream: io.TextIOBase, nothing: Rows) -> None:
        self._stream = stream

    def write(self, rows: Rows) -> None:
        values = rows.track(None)
        fields = zip(rows.seq_id, rows.start.tolist(), rows.end.tolist(), values.tolist(), strict=True)
        self._stream.writelines(
            f"{record}\t{start}\t{end}\t{value:.{DECIMALS}f}\n"
            for record, start, end, value in fields
            if value == value
        )

    def take_over(self, path: Path) -> None:
        _copy_lines(path, self._stream)

    def close(self) -> None:
        """Does nothing: no row is held back."""


_WRITERS: dict[str, Callable[[Any, Any], TableWriter]] = {
    ".tsv": lambda stream, nothing: _Delimited(stream, nothing, "\t"),
    ".csv": lambda stream, nothing: _Delimited(stream, nothing, ","),
    ".jsonl": _JsonLines,
    ".parquet": _Parquet,
    ".bed": _Bed,
    ".gff3": _Gff3,
    ".bedgraph": _BedGraph,
}


def _copy_lines(path: Path, stream: io.TextIOBase, *, header: str | None = None, after: str | None = None) -> None:
    """Copies the text of a file, which may be gzip, without its header.

    Args:
        path: the file.
        stream: where to.
        header: what parts the fields of its header, if that has fields.
        after: what its header begins with, if that is a line of text.
    """
    kind = gzip.open if path.suffix.lower() == ".gz" else open
    with kind(path, "rt", encoding="utf-8", newline="") as text:
        if header is not None:
            next(csv.reader(text, delimiter=header), None)
        if after is not None and not text.readline().startswith(after):
            raise ValueError(f"{path} does not begin with {after}")
        shutil.copyfileobj(text, stream)


def _bed_name(name: str) -> str:
    """BED fields hold no white space."""
    return "_".join(name.split()) or "_"


def _as_text(column: Sequence[object] | np.ndarray) -> Sequence[object]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return ["" if value != value else f"{value:.{DECIMALS}f}" for value in column.tolist()]
    return column.tolist() if isinstance(column, np.ndarray) else column


def _as_json(column: Sequence[object] | np.ndarray) -> Sequence[object]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return [None if value != value else round(value, DECIMALS) for value in column.tolist()]
    return column.tolist() if isinstance(column, np.ndarray) else column
