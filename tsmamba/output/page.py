"""One page with everything about a forecast, which needs no network: pictures are drawn into it as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mamba_data_prep.series import Finding, IngestReport, SeriesFrame
from mamba_training import web_page as web
from tsmamba.evaluation.outcome import saved_text
from tsmamba.forecaster import Forecaster
from tsmamba.output.plots import coverage_figure, forecast_figure, svg
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.tables import with_written_times

_COLUMNS = {
    "mase": "MASE", "rmsse": "RMSSE", "smape": "sMAPE", "mae": "MAE", "mse": "MSE", "pinball": "pinball",
    "crps": "CRPS",
}  # fmt: skip
_MOST_ROWS = 2000


def write_page(
    path: Path, title: str, frame: SeriesFrame, forecast: Forecast, forecaster: Forecaster, table: pd.DataFrame
) -> None:
    """Writes the page; it appears whole or not at all.

    Args:
        path: of the page.
        title: its heading.
        frame: the series.
        forecast: what follows them.
        forecaster: that made it, with its backtests.
        table: the forecast as a table, from `forecast_table`.
    """
    selection, written = forecaster.selection_, with_written_times(table, frame)
    parts = [web.note(text) for text in selection.notes]
    parts += [
        web.heading("Forecast"),
        svg(forecast_figure(frame, forecast, "", selection.past)),
        _forecast_table(written),
    ]
    parts += [web.heading("Leaderboard"), _leaderboard(forecaster.about_)]
    if selection.past is not None:
        past = selection.past
        parts += [
            web.heading("Backtest"),
            _backtest_line(forecaster.about_, len(past.steps_back)),
            svg(coverage_figure(past)),
        ]
        parts.append(web.details("By series", _scores(past.by_series(), "unique_id")))
        parts.append(web.details("By step ahead", _scores(past.by_horizon(), "step")))
    parts += [web.heading("What reading did to the file"), _ingest(frame.report)]
    web.write_page(path, title, parts)


def _forecast_table(table: pd.DataFrame) -> str:
    rows = table.head(_MOST_ROWS).to_dict("records")
    body = [[str(row[name]) if name in ("unique_id", "ds") else row[name] for name in table.columns] for row in rows]
    shown = web.table(list(map(str, table.columns)), body)
    more = web.words(f"The first {_MOST_ROWS:,} of {len(table):,} rows.") if len(table) > _MOST_ROWS else ""
    return web.details("Table", shown, more)


def _leaderboard(about: Mapping[str, Any]) -> str:
    """Every method on the same origins, what was taken in bold, and the error it saves against each baseline."""
    rows = about["leaderboard"]
    if not rows:
        return web.words("The series are too short to compare methods.")
    heads = ["method", *_COLUMNS.values(), "seconds"]
    body = [[row["method"], *(row[name] for name in _COLUMNS), row.get("seconds")] for row in rows]
    taken = [place for place, row in enumerate(rows) if row["taken"]]
    saved, honest = saved_text(about["skill"]), saved_text(about.get("skill_of_choosing", {}))
    left = [f"{name}: {why}" for name, why in about["left_out"].items()]
    lines = [web.words(f"{about['origins']} origins, the same for all."), web.table(heads, body, taken)]
    lines += [web.words(f"Error saved against each baseline: {saved}.")] if saved else []
    lines += [web.words(f"Without hindsight, each origin by what was best before it: {honest}.")] if honest else []
    lines += [web.words(f"Not tried: {'; '.join(left)}.")] if left else []
    return "".join(lines)


def _backtest_line(about: Mapping[str, Any], origins: int) -> str:
    held = [
        f"{name} % intervals held {value:.1%}"
        for name, value in about["interval_coverage"].items()
        if value is not None
    ]
    return web.words(
        f"{origins:,} forecasts of {about['method']} from past rows, none of which saw what followed; intervals from "
        f"the errors known by then. {'; '.join(held)}."
    )


def _scores(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    names = [name for name in rows[0] if name != key] if rows else []
    heads = [key, *(_COLUMNS.get(name, name.replace("_", " ")) for name in names)]
    return web.table(heads, [[str(row[key]), *(row[name] for name in names)] for row in rows])


def _ingest(report: IngestReport) -> str:
    facts = [[str(name), str(value)] for name, value in report.detected.items()]
    parts = [web.table(["detected", ""], facts)]
    for heading, entries in (("Repaired", report.findings), ("Noticed, left as it is", report.notes)):
        items = "".join(
            f"<li><b>{html.escape(entry.rule)}</b> ({entry.count:,}): {html.escape(entry.what + _where(entry))}</li>"
            for entry in entries
        )
        parts.append(f"<p>{heading}: {'nothing' if not items else ''}</p><ul>{items}</ul>")
    return "".join(parts)


def _where(entry: Finding) -> str:
    """Column and first lines that an entry is about."""
    lines = ", ".join(f"{line:,}" for line in entry.lines) + (", ..." if entry.count > len(entry.lines) else "")
    parts = [f"column {entry.column}"] if entry.column else []
    parts += [f"line {lines}"] if entry.lines else []
    return f" ({', '.join(parts)})" if parts else ""
