"""`tsmamba forecast` and `tsmamba report`: from a file to a table, a picture and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Finding, SeriesFrame
from tsmamba.commands.asked import Asked, asked
from tsmamba.commands.checks import beside, check_forecast, input_files
from tsmamba.commands.reading import read_as_told, read_for_model
from tsmamba.commands.terminal import shown_progress, table_text
from tsmamba.evaluation.outcome import saved_text
from tsmamba.forecaster import Forecaster
from tsmamba.output.table import write_record, write_table
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.tables import forecast_table, with_written_times, without_values

_SHOWN_ROWS, _SHOWN_SERIES = 6, 4


@dataclass(frozen=True)
class Result:
    """A file's forecast, and what it came from.

    Attributes:
        frame: the series.
        forecaster: that made it.
        forecast: point and quantiles, cut to the horizon.
        table: the same as a long table, times in UTC.
    """

    frame: SeriesFrame
    forecaster: Forecaster
    forecast: Forecast
    table: pd.DataFrame

    def title(self) -> str:
        """What the forecast is, in a line."""
        steps = self.forecast.point.shape[1]
        name = Path(self.frame.report.path).name
        return (
            f"{name}: the next {steps:,} rows (step {self.frame.frequency.alias}) by {self.forecaster.selection_.name}"
        )


def run_forecast(
    *,
    csv: Path,
    reading: Mapping[str, Any],
    horizon: int | None = None,
    model: Path | None = None,
    out: Path | None = None,
    plot: Path | None = None,
    report: Path | None = None,
    holidays: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Forecasts the series of a file and writes the table and whatever else is asked for.

    Args:
        csv: the file.
        reading: what is said of its columns (see `tsmamba.commands.reading`).
        horizon: rows ahead; a season or so by default.
        model: a run of `tsmamba fit`, used as it is.
        out: the table; `NAME.forecast.csv` beside the input by default.
        plot, report: a picture, a page.
        holidays: a country whose holidays models are told.
        overwrite: replace outputs that exist.
        quiet: show no progress.
        options: what is fitted and how: `config`, `overrides`, `method`, `levels`, `seed`, `max_time`, `device`,
            `limit`, as `tsmamba.commands.asked.asked` takes them.

    Returns:
        Plain values for programs, and under `text` for people.

    Raises:
        UserError: something about the file or the outputs; nothing is half-written.
    """
    out = out or beside(csv, ".forecast.csv")
    check_forecast(
        csv=csv, reading=reading, model=model, out=out, plot=plot, report=report, overwrite=overwrite
    )  # fmt: skip
    wanted = asked(**options)
    result = _forecast(csv, reading, horizon, model, wanted, holidays, quiet)
    write_table(out, result.table, result.frame)
    about = {"settings": _recorded(result, wanted, holidays), **_facts(result)}
    written = {"out": out, "plot": plot, "report": report}
    if plot is not None:
        _write_plot(result, plot)
    if report is not None:
        _write_page(result, report)
    for path in filter(None, written.values()):
        write_record(path, input_files(csv, reading), model, wanted.seed, about)
    files = {name: str(path) for name, path in written.items() if path is not None}
    return {**files, **about, "text": _text(result, files)}


def run_report(
    *,
    csv: Path,
    reading: Mapping[str, Any],
    horizon: int | None = None,
    model: Path | None = None,
    out: Path | None = None,
    holidays: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Writes the page alone; arguments as of `run_forecast`.

    Raises:
        UserError: something about the file or the page's name.
    """
    out = out or beside(csv, ".report.html")
    check_forecast(csv=csv, reading=reading, model=model, report=out, overwrite=overwrite)
    wanted = asked(**options)
    result = _forecast(csv, reading, horizon, model, wanted, holidays, quiet)
    _write_page(result, out)
    facts = {"settings": _recorded(result, wanted, holidays), **_facts(result)}
    write_record(out, input_files(csv, reading), model, wanted.seed, facts)
    return {"out": str(out), **facts, "text": _text(result, {"report": str(out)})}


def _recorded(result: Result, wanted: Asked, holidays: str | None) -> dict[str, Any]:
    """What was asked for, so that it can be asked for again."""
    steps = result.forecast.point.shape[1]
    return {"horizon": steps, "method": wanted.method, "holidays": holidays, **wanted.settings}


def _forecast(
    csv: Path,
    reading: Mapping[str, Any],
    horizon: int | None,
    model: Path | None,
    wanted: Asked,
    holidays: str | None,
    quiet: bool,
) -> Result:
    with shown_progress(quiet) as note:
        if model is None:
            frame = read_as_told(csv, reading)
            forecaster = Forecaster(horizon, wanted.method, holidays=holidays, **wanted.parameters())
            forecaster.fit(frame, note=note)
        else:
            forecaster = Forecaster.load(model)
            frame = read_for_model(csv, reading, forecaster.source_.frequency)
            if horizon is not None and horizon > forecaster.task_.horizon:
                raise UserError(
                    "the model was fitted for a shorter horizon", found=horizon, path=model,
                    accepted=f"up to {forecaster.task_.horizon}", fix="fit it again with this horizon",
                )  # fmt: skip
        note("forecasting")
        forecast = forecaster.forecast(frame)
    forecast = forecast.first(horizon or forecaster.task_.horizon)
    return Result(frame, forecaster, forecast, forecast_table(forecast, frame))


def _write_plot(result: Result, path: Path) -> None:
    from tsmamba.output.plots import forecast_figure, save_figure

    past = result.forecaster.selection_.past
    save_figure(forecast_figure(result.frame, result.forecast, result.title(), past), path)


def _write_page(result: Result, path: Path) -> None:
    from tsmamba.output.page import write_page

    write_page(path, result.title(), result.frame, result.forecast, result.forecaster, result.table)


def _facts(result: Result) -> dict[str, Any]:
    """What a program may want to know of a forecast."""
    frame, forecaster = result.frame, result.forecaster
    return {
        "horizon": int(result.forecast.point.shape[1]),
        "frequency": frame.frequency.alias,
        "season": forecaster.task_.season,
        "zone": frame.zone,
        "series": len(result.forecast.ids),
        "without_values": without_values(frame),
        **forecaster.about_,
        "ingest": frame.report.to_dict(),
    }


def _text(result: Result, files: Mapping[str, str]) -> str:
    """Tables and sentences for the terminal."""
    about, frame = result.forecaster.about_, result.frame
    parts = [f"{result.title()}", _reading_line(frame), table_text(_forecast_rows(result))]
    if saved := saved_text(about["skill"]):
        parts.append(f"Error saved against each baseline ({about['origins']} past origins): {saved}")
    if saved := saved_text(about.get("skill_of_choosing", {})):
        parts.append(f"Without hindsight, each origin by what was best before it: {saved}")
    coverage = {percent: value for percent, value in about["interval_coverage"].items() if value is not None}
    if coverage:
        held = ", ".join(f"{percent} % held {value:.0%}" for percent, value in coverage.items())
        parts.append(f"Intervals on past rows: {held}")
    parts += list(about["notes"])
    parts += [f"{name}: {path}" for name, path in files.items()]
    return "\n".join(parts)


def _reading_line(frame: SeriesFrame) -> str:
    repaired, noticed = _counted(frame.report.findings), _counted(frame.report.notes)
    rows = len(frame.frame)
    zone = f", zone {frame.zone}" if frame.zone else ""
    line = f"Read {rows:,} rows of {len(frame.ids):,} series, step {frame.frequency.alias}{zone}"
    for what, entries in (("repaired", repaired), ("noticed", noticed)):
        if entries:
            line += f"; {what}: {', '.join(entries)}"
    return line


def _counted(entries: Sequence[Finding]) -> list[str]:
    """Each rule once, with how often it was applied in all columns."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.rule] += entry.count
    return [f"{rule} ({count:,})" for rule, count in counts.items()]


def _forecast_rows(result: Result) -> Any:
    from rich.table import Table

    shown = with_written_times(result.table, result.frame)
    steps = result.forecast.point.shape[1]
    table = Table(box=None, pad_edge=False, header_style="", show_edge=False)
    quantiles = [name for name in shown.columns if name not in ("unique_id", "ds")]
    for name in ("unique_id", "ds", *quantiles):
        table.add_column(name, justify="left" if name in ("unique_id", "ds") else "right", no_wrap=True)
    for start in range(0, min(len(shown), _SHOWN_SERIES * steps), steps):
        for row in shown.iloc[start : start + min(steps, _SHOWN_ROWS)].to_dict("records"):
            table.add_row(str(row["unique_id"])[:32], str(row["ds"]), *(_number(row[name]) for name in quantiles))
        if steps > _SHOWN_ROWS:
            table.add_row("", f"... {steps - _SHOWN_ROWS:,} more", *("" for _ in quantiles))
    if len(shown) > _SHOWN_SERIES * steps:
        table.add_row(f"... {len(shown) // steps - _SHOWN_SERIES:,} more series", "", *("" for _ in quantiles))
    return table


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:,.4g}"
