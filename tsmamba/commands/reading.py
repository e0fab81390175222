"""From the reading options of the command line to a `SeriesFrame`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency, ReadOptions, SeriesFrame, read_series

_FIELDS = {
    **{"time_column": "time", "targets": "target", "id_column": "id", "freq": "frequency", "sheet": "sheet"},
    **{"dayfirst": "dayfirst", "timezone": "zone"},
}
"""The command line's names of options -> those of `ReadOptions`."""


def options_of(reading: Mapping[str, Any]) -> ReadOptions:
    """The options that the command line gives, on top of those in its rules file.

    Raises:
        UserError: the rules file cannot be read, or a setting is unknown.
    """
    rules = reading.get("rules")
    options = ReadOptions() if rules is None else ReadOptions.load(rules)
    given = {field: reading.get(name) for name, field in _FIELDS.items()}
    named = {field: _listed(field, value) for field, value in given.items() if value not in (None, ())}
    options = replace(options, **named)
    return options.having(reading.get("settings") or ())


def _listed(field: str, value: Any) -> Any:
    """A single column as the tuple of columns that `ReadOptions` holds."""
    if field not in ("time", "id", "target"):
        return value
    return (value,) if isinstance(value, str) else tuple(value)


def read_as_told(csv: str | Path, reading: Mapping[str, Any]) -> SeriesFrame:
    """Read a file with the reading options of the command line.

    Raises:
        UserError: the file cannot be read without guessing.
    """
    if csv == Path("-") and (reading.get("future") or reading.get("static")):
        raise UserError("standard input takes no further files", fix="save the table to a file first")
    return read_series(csv, options_of(reading), future=reading.get("future"), static=reading.get("static"))


def read_for_model(csv: str | Path, reading: Mapping[str, Any], step: Frequency) -> SeriesFrame:
    """Read a file whose series go on as those that a model was fitted on.

    A few rows do not tell opening hours, working weeks or working days: where all rows keep to the model's, they are
    read so.

    Raises:
        UserError: the file cannot be read without guessing.
    """
    frame = read_as_told(csv, reading)
    told = options_of(reading).frequency is not None or csv == Path("-")
    if told or step.unit not in ("open", "business") or frame.frequency.alias == step.alias:
        return frame
    again = read_as_told(csv, {**reading, "freq": step.alias})
    return frame if any(entry.rule == "resampled" for entry in again.report.findings) else again
