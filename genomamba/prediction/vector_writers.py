"""Files of vectors: NumPy's .npz, Parquet, and AnnData's .h5ad. Vectors wait on disk, not in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from jaxtyping import Float32

from mamba_data_prep.atomic import atomic_write, clean_orphans
from mamba_data_prep.errors import UserError

VECTOR_FORMATS: Final = (".npz", ".parquet", ".h5ad")
POSITION_FORMATS: Final = (".parquet",)
"""Formats that a row a base may go into: the others are read whole by whoever opens them."""


@dataclass(frozen=True, eq=False)
class VectorRows:
    """Rows of a table of vectors.

    Attributes:
        columns: `seq_id`, `start`, `end`, `strand` and further ones, a value a row.
        values: (n, W) float32; NaN where a row has no base.
    """

    columns: Mapping[str, Sequence[Any]]
    values: Float32[np.ndarray, "n W"]


class VectorWriter(Protocol):
    """Takes rows, and writes what is held back when it is closed."""

    def write(self, rows: VectorRows) -> None:
        """Appends rows."""
        ...

    def close(self) -> None:
        """Writes what is still held back."""
        ...


@contextmanager
def vector_writer(path: Path, width: int, about: Mapping[str, Any]) -> Iterator[VectorWriter]:
    """A writer whose file appears under its name only when the block ends without an error.

    Args:
        path: its ending, one of `VECTOR_FORMATS`, is the format.
        width: numbers in a vector.
        about: what the vectors are, which Parquet and h5ad hold too.

    Raises:
        UserError: the package that writes h5ad is missing.
    """
    kind = {".npz": _Npz, ".parquet": _Parquet, ".h5ad": _H5ad}[path.suffix.lower()]
    clean_orphans(path.parent)
    with atomic_write(path, "wb") as stream:
        writer = kind(stream, width, about)
        try:
            yield writer
        except BaseException:
            with suppress(Exception):
                writer.drop()
            raise
        writer.close()


def check_h5ad(path: Path) -> None:
    """Refuses an h5ad file where anndata is missing, before any work.

    Raises:
        UserError: it cannot be imported.
    """
    from importlib.util import find_spec

    if path.suffix.lower() == ".h5ad" and find_spec("anndata") is None:
        raise UserError("writing h5ad needs the package anndata", path=path, fix="pip install 'seqmamba[h5ad]'")


class _Parquet:
    def __init__(self, stream: IO[bytes], width: int, about: Mapping[str, Any]) -> None:
        self._stream, self._width = stream, width
        self._about = {name: str(value) for name, value in about.items()}
        self._file: Any = None

    def write(self, rows: VectorRows) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.values.ravel()), self._width)
        table = pa.table({**{name: pa.array(values) for name, values in rows.columns.items()}, "embedding": vectors})
        table = table.replace_schema_metadata(self._about)
        if self._file is None:
            self._file = pq.ParquetWriter(self._stream, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def drop(self) -> None:
        self.close()


class _Held:
    """Vectors that wait on disk, and the other columns in memory."""

    def __init__(self, stream: IO[bytes], width: int, about: Mapping[str, Any]) -> None:
        self._stream, self._width, self._about = stream, width, about
        self._columns: dict[str, list[Any]] = {}
        self._vectors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `drop`)
        self._count = 0

    def write(self, rows: VectorRows) -> None:
        for name, values in rows.columns.items():
            self._columns.setdefault(name, []).extend(values)
        self._vectors.write(np.ascontiguousarray(rows.values).tobytes())
        self._count += len(rows.values)

    def drop(self) -> None:
        self._vectors.close()


class _Npz(_Held):
    def close(self) -> None:
        with zipfile.ZipFile(self._stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("embedding.npy", "w", force_zip64=True) as file:
                shape = {"descr": "<f4", "fortran_order": False, "shape": (self._count, self._width)}
                np.lib.format.write_array_header_2_0(file, shape)
                self._vectors.seek(0)
                shutil.copyfileobj(self._vectors, file, 2**20)
            for name, values in self._columns.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.array(values), allow_pickle=False)
        self.drop()


class _H5ad(_Held):
    def close(self) -> None:
        import anndata
        import pandas as pd

        shape = (self._count, self._width)
        self._vectors.flush()
        values = np.asarray(np.memmap(self._vectors, np.float32, "r", shape=shape))
        places = zip(self._columns["seq_id"], self._columns["start"], self._columns["end"], strict=True)
        names = pd.Index([f"{name}:{start}-{end}" for name, start, end in places])
        channels = pd.DataFrame(index=pd.Index([str(number) for number in range(self._width)]))
        found = anndata.AnnData(values, pd.DataFrame(self._columns, index=names), channels)
        found.obs_names_make_unique()
        found.uns["genomamba"] = {name: str(value) for name, value in self._about.items()}
        with tempfile.NamedTemporaryFile(suffix=".h5ad", dir=Path(self._stream.name).parent) as made:
            found.write_h5ad(made.name)
            with open(made.name, "rb") as file:
                shutil.copyfileobj(file, self._stream, 2**20)
        self.drop()
