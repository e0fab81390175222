"""What commands ask of their files before the heavy libraries are loaded, so that a wrong name is told at once.

A command calls its check again when it runs, for whoever calls it from Python; asking twice changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamba_data_prep.errors import UserError
from mamba_data_prep.outputs import check_input, check_output, check_output_folder
from mamba_data_prep.workbooks import check_installed
from mamba_training.folders import check_run_folder, model_folder

TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".json", ".jsonl")
"""Endings of the tables that forecasts are written as."""
PICTURES = (".png", ".svg", ".html")
PAGES = (".html",)
_ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".gz")


def check_reading(csv: Path, reading: Mapping[str, Any]) -> None:
    """Refuse a file of series that isn't there, and those that are told about it.

    Raises:
        UserError: naming the file.
    """
    for path in input_files(csv, reading):
        check_input(path)


def check_forecast(
    *,
    csv: Path,
    reading: Mapping[str, Any],
    model: Path | None,
    out: Path | None = None,
    plot: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Refuse inputs that aren't there and outputs that can't be written or exist.

    Raises:
        UserError: naming what is wrong.
    """
    check_reading(csv, reading)
    sources = input_files(csv, reading)
    for option, path, endings in (("--out", out, TABLES), ("--plot", plot, PICTURES), ("--report", report, PAGES)):
        check_output(path, endings=endings, inputs=sources, overwrite=overwrite, option=option)
    if out is not None and out.suffix.lower() == ".xlsx":
        check_installed(out)
    named = [path.absolute() for path in (out, plot, report) if path is not None]
    if len(set(named)) < len(named):
        raise UserError("two outputs have one name", found=", ".join(map(str, named)), fix="give each its own")
    if model is not None:
        model_folder(model)


def check_fit(*, csv: Path, reading: Mapping[str, Any], out: Path, resume: bool) -> None:
    """Refuse inputs that aren't there, and a folder that holds something else.

    Raises:
        UserError: naming what is wrong.
    """
    check_reading(csv, reading)
    check_run_folder(out, resume)


def check_backtest(
    *, csv: Path, reading: Mapping[str, Any], model: Path | None, out: Path | None, overwrite: bool
) -> None:
    """Refuse inputs that aren't there, and a folder that can't be written or holds something.

    Raises:
        UserError: naming what is wrong.
    """
    check_reading(csv, reading)
    sources = input_files(csv, reading)
    check_output_folder(out, marks=("backtest.json",), inputs=(*sources, model), overwrite=overwrite)
    if model is not None:
        model_folder(model)


def check_doctor(*, csv: Path, reading: Mapping[str, Any], out: Path, rules_out: Path, overwrite: bool) -> None:
    """Refuse inputs that aren't there, and outputs that can't be written or exist.

    Raises:
        UserError: naming what is wrong.
    """
    check_reading(csv, reading)
    for option, path in (("--out", out), ("--rules-out", rules_out)):
        check_output(path, inputs=input_files(csv, reading), overwrite=overwrite, option=option)


def input_files(csv: Path, reading: Mapping[str, Any]) -> list[Path | None]:
    """The files that a command reads."""
    return [csv, reading.get("future"), reading.get("static"), reading.get("rules")]


def beside(csv: Path, ending: str) -> Path:
    """The default output: beside the input, or here where that folder may not be written to."""
    name = csv.name
    while Path(name).suffix.lower() in _ENDINGS:
        name = Path(name).stem
    folder = csv.parent if csv.parent.is_dir() and os.access(csv.parent, os.W_OK) else Path()
    return folder / f"{name}{ending}"


def clean_files(csv: Path, out: Path | None, rules_out: Path | None) -> tuple[Path, Path]:
    """Where `doctor` writes the cleaned table and its rules: beside the file, or here for standard input."""
    name = "table" if str(csv) == "-" else csv.name.removesuffix(".gz").rsplit(".", 1)[0]
    folder = Path() if str(csv) == "-" else csv.parent
    return out or folder / f"{name}.clean.csv", rules_out or folder / f"{name}.rules.yaml"
