"""Prediction tables that `genomamba classify` wrote, read again chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from genomamba.prediction.rows import Predictions
from genomamba.prediction.writers import READABLE
from mamba_data_prep.errors import UserError

_ROWS: Final = 50_000
_NEEDED: Final = ("seq_id", "start", "end", "strand", "n_frac", "predicted", "confidence", "reason")
_PREFIX: Final = "prob_"


def read_predictions(path: Path) -> Iterator[Predictions]:
    """The rows of a prediction table, in their order.

    Args:
        path: in one of the formats `READABLE`.

    Raises:
        UserError: it has another format, lacks a column, or a value is no number.
    """
    name = path.name.lower()
    if not name.endswith(READABLE):
        raise UserError(
            "this is no table of predictions that can be read again", path=path, accepted=" ".join(READABLE),
            fix="BED, GFF3 and bigWig do not hold all probabilities; classify into a .tsv once",
        )  # fmt: skip
    try:
        for chunk in _chunks(path, name):
            yield _rows(chunk, path)
    except (ValueError, OSError, EOFError) as error:  # pandas, pyarrow and gzip
        raise UserError(f"the table cannot be read: {error}", path=path) from None


def _chunks(path: Path, name: str) -> Iterator[pd.DataFrame]:
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            for group in file.iter_batches(_ROWS):
                yield group.to_pandas()
        return
    texts: dict[Any, Any] = dict.fromkeys(("seq_id", "strand", "predicted", "reason", "name"), str)
    if ".jsonl" in name:
        whole: dict[Any, Any] = {**texts, "start": "int64", "end": "int64"}
        yield from pd.read_json(path, lines=True, chunksize=_ROWS, dtype=whole)
        return
    delimiter = "\t" if ".tsv" in name else ","
    numbers: dict[Any, Any] = {name: [""] for name in ("confidence", "margin", "typicality")}
    yield from pd.read_csv(path, sep=delimiter, chunksize=_ROWS, dtype=texts, keep_default_na=False, na_values=numbers)


def _rows(chunk: pd.DataFrame, path: Path) -> Predictions:
    missing = [name for name in _NEEDED if name not in chunk]
    classes = tuple(name.removeprefix(_PREFIX) for name in chunk.columns if name.startswith(_PREFIX))
    if missing or not classes:
        lacking = missing[0] if missing else f"{_PREFIX}<class>"
        raise UserError(
            "this is no table of genomamba classify", path=path, found=f"no column {lacking}",
            accepted=", ".join((*_NEEDED, f"{_PREFIX}<class>")),
        )  # fmt: skip
    if "typicality" not in chunk:  # an older table
        chunk = chunk.assign(typicality=np.nan)
    names = [*(f"{_PREFIX}{name}" for name in classes), "typicality"]
    numbers = chunk[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    return Predictions(
        classes, chunk["seq_id"].astype(str).tolist(), chunk["start"].to_numpy(np.int64),
        chunk["end"].to_numpy(np.int64), chunk["strand"].astype(str).tolist(),
        chunk["n_frac"].to_numpy(np.float64), chunk["predicted"].tolist(), numbers[:, :-1],
        chunk["reason"].fillna("").tolist(), numbers[:, -1],
        chunk["name"].fillna("").tolist() if "name" in chunk else None,
    )  # fmt: skip
