"""Writing forecasts as CSV, TSV, Excel, Parquet, JSON or JSON lines, by their name, with a sidecar of their origin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import write_sidecar
from mamba_data_prep.series import SeriesFrame
from mamba_data_prep.workbooks import MOST_ROWS
from tsmamba.panel.tables import with_written_times, with_zone


def write_table(path: Path, table: pd.DataFrame, frame: SeriesFrame) -> None:
    """Writes a forecast; the file appears whole or not at all.

    Args:
        path: its ending is the format.
        table: `unique_id, ds, yhat` and quantiles, from `forecast_table`.
        frame: tells how its source writes times; Parquet keeps real times, in the source's zone, instead,
            and Excel where there is no zone, which it does not know.

    Raises:
        UserError: a sheet of Excel does not hold so many rows.
    """
    kind = path.suffix.lower()
    if kind == ".xlsx" and len(table) >= MOST_ROWS:
        most = f"up to {MOST_ROWS - 1:,}"
        raise UserError(
            "a sheet of Excel does not hold so many rows", path=path, found=f"{len(table):,}", accepted=most
        )
    with atomic_write(path, "wb") as file:
        if kind == ".parquet":
            with_zone(table, frame.zone).to_parquet(file, index=False)
            return
        if kind == ".xlsx":
            dated = table if frame.zone is None else with_written_times(table, frame)
            dated.to_excel(cast(Any, file), sheet_name="forecast", index=False, engine="openpyxl")
            return
        text = with_written_times(table, frame)
        if kind in (".csv", ".tsv"):
            content = text.to_csv(
                index=False, sep="," if kind == ".csv" else "\t", float_format="%.10g", lineterminator="\n"
            )
        else:
            rows = [_without_nan(row) for row in text.to_dict("records")]
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
            content = "\n".join(lines) + "\n" if kind == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]\n"
        file.write(content.encode("utf-8"))


def write_record(
    path: Path, inputs: Sequence[Path | None], model: Path | None, seed: int, extra: Mapping[str, Any]
) -> Path:
    """Writes the sidecar of an output: hashes of what it was made from, versions, command and seed."""
    files = [source for source in inputs if source is not None and source.is_file()]
    return write_sidecar(path, inputs=files, model=model, seed=seed, extra=extra)


def _without_nan(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): None if isinstance(value, float) and value != value else value for key, value in row.items()}
