"""One page with everything about a forecast, which needs no network: pictures are drawn into it as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.provenance import versions
from mamba_data_prep.series import Finding, IngestReport, SeriesFrame
from tsmamba.evaluation.outcome import saved_text
from tsmamba.forecaster import Forecaster
from tsmamba.output.plots import coverage_figure, forecast_figure, svg
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.tables import with_written_times

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1120px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: 0.86rem; display: block; overflow-x: auto }
th, td { padding: 0.2rem 0.5rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap }
th:first-child, td:first-child { text-align: left } tr.taken { font-weight: 600; background: #eef5fb }
svg { max-width: 100%; height: auto }
.note { background: #f6f6f6; padding: 0.5rem 0.9rem; border-left: 3px solid #1f77b4 }
details { margin: 0.4rem 0 } footer { margin-top: 3rem; color: #777; font-size: 0.8rem }
"""
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
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in selection.notes]
    parts += ["<h2>Forecast</h2>", svg(forecast_figure(frame, forecast, "", selection.past)), _forecast_table(written)]
    parts += ["<h2>Leaderboard</h2>", _leaderboard(forecaster.about_)]
    if selection.past is not None:
        past = selection.past
        parts += [
            "<h2>Backtest</h2>",
            _backtest_line(forecaster.about_, len(past.steps_back)),
            svg(coverage_figure(past)),
        ]
        parts += ["<details><summary>By series</summary>", _scores(past.by_series(), "unique_id"), "</details>"]
        parts += ["<details><summary>By step ahead</summary>", _scores(past.by_horizon(), "step"), "</details>"]
    parts += ["<h2>What reading did to the file</h2>", _ingest(frame.report)]
    parts += [f"<footer>{html.escape(', '.join(f'{name} {one}' for name, one in versions().items() if one))}</footer>"]
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
    view = "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    with atomic_write(path) as file:
        file.write(f"{head}{view}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n")


def _forecast_table(table: pd.DataFrame) -> str:
    rows = table.head(_MOST_ROWS).to_dict("records")
    body = [
        [str(row[name]) if name in ("unique_id", "ds") else _number(row[name]) for name in table.columns]
        for row in rows
    ]
    more = f"<p>The first {_MOST_ROWS:,} of {len(table):,} rows.</p>" if len(table) > _MOST_ROWS else ""
    return f"<details><summary>Table</summary>{_html_table(list(map(str, table.columns)), body)}{more}</details>"


def _leaderboard(about: Mapping[str, Any]) -> str:
    """Every method on the same origins, what was taken in bold, and the error it saves against each baseline."""
    rows = about["leaderboard"]
    if not rows:
        return "<p>The series are too short to compare methods.</p>"
    heads = ["method", *_COLUMNS.values(), "seconds"]
    body = [[row["method"], *(_number(row[name]) for name in _COLUMNS), _number(row.get("seconds"))] for row in rows]
    taken = [place for place, row in enumerate(rows) if row["taken"]]
    saved, honest = saved_text(about["skill"]), saved_text(about.get("skill_of_choosing", {}))
    left = [f"{name}: {why}" for name, why in about["left_out"].items()]
    lines = [f"<p>Error saved against each baseline: {html.escape(saved)}.</p>"] if saved else []
    lines += (
        [f"<p>Without hindsight, each origin by what was best before it: {html.escape(honest)}.</p>"] if honest else []
    )
    lines += [f"<p>Not tried: {html.escape('; '.join(left))}.</p>"] if left else []
    return f"<p>{about['origins']} origins, the same for all.</p>{_html_table(heads, body, taken)}{''.join(lines)}"


def _backtest_line(about: Mapping[str, Any], origins: int) -> str:
    held = [
        f"{name} % intervals held {value:.1%}"
        for name, value in about["interval_coverage"].items()
        if value is not None
    ]
    return (
        f"<p>{origins:,} forecasts of {html.escape(about['method'])} from past rows, none of which saw what followed; "
        f"intervals from the errors known by then. {html.escape('; '.join(held))}.</p>"
    )


def _scores(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    names = [name for name in rows[0] if name != key] if rows else []
    heads = [key, *(_COLUMNS.get(name, name.replace("_", " ")) for name in names)]
    return _html_table(heads, [[str(row[key]), *(_number(row[name]) for name in names)] for row in rows])


def _ingest(report: IngestReport) -> str:
    facts = [[str(name), str(value)] for name, value in report.detected.items()]
    parts = [_html_table(["detected", ""], facts)]
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


def _html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    top = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(
        f"<tr class='{'taken' if place in marked else 'other'}'>{line}</tr>" for place, line in enumerate(lines)
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
