"""`metrics.csv`: one row per logged step, none twice and none missing, also when the run was killed and resumed."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mamba_data_prep.atomic import atomic_write, named_write_errors

_FLUSH_SECONDS = 2.0


class MetricsLog:
    """Appends rows; a new column rewrites the file once, with blanks in the older rows.

    Args:
        path: the CSV file.
        after_step: keep the rows up to this step and drop the later ones, which a resumed run will write again.
    """

    def __init__(self, path: str | Path, after_step: int = 0) -> None:
        self.path = Path(path)
        self.columns: list[str] = ["step"]
        self._waiting = io.StringIO()
        self._flushed_at = time.monotonic()
        rows = [row for row in read_rows(self.path) if int(row["step"]) <= after_step]
        self._rewrite(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row; it reaches the file within seconds, or at `flush`.

        Raises:
            UserError: the file cannot be written.
        """
        if fresh := [name for name in row if name not in self.columns]:
            self.flush()
            self.columns += fresh
            self._rewrite(read_rows(self.path))
        csv.writer(self._waiting, lineterminator="\n").writerow([_shown(row.get(name)) for name in self.columns])
        if time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
            self.flush()

    def flush(self, *, to_disk: bool = False) -> None:
        """Write the waiting rows; with `to_disk`, come back only when they would survive a power cut."""
        text, self._waiting = self._waiting.getvalue(), io.StringIO()
        self._flushed_at = time.monotonic()
        with named_write_errors(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if to_disk:
                os.fsync(file.fileno())

    def _rewrite(self, rows: Iterator[dict[str, str]] | list[dict[str, str]]) -> None:
        rows = list(rows)
        for row in rows:
            self.columns += [name for name in row if name not in self.columns]
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def read_rows(path: str | Path) -> Iterator[dict[str, str]]:
    """The rows of a `metrics.csv` as texts; a last row that was cut by a kill is left out."""
    path = Path(path)
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if line.endswith("\n"))
        reader = csv.reader(lines)
        columns = next(reader, [])
        for cells in reader:
            if len(cells) == len(columns) and cells[0].isdecimal():
                yield dict(zip(columns, cells, strict=True))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
