"""`tsmamba backtest`: forecasts from past dates beside what came, as scores and as a table to check them by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mamba_data_prep.atomic import AtomicDirectory
from mamba_data_prep.errors import UserError
from mamba_data_prep.series import SeriesFrame
from tsmamba.commands.asked import Asked, asked, check_fits
from tsmamba.commands.checks import check_backtest, input_files
from tsmamba.commands.reading import read_as_told, read_for_model
from tsmamba.commands.terminal import shown_progress, table_text
from tsmamba.config import Note
from tsmamba.evaluation.backtest import Backtest, roll, rolling_origins
from tsmamba.evaluation.conformal import calibrate
from tsmamba.evaluation.selection import BASELINES, candidates, compare, honest_choice
from tsmamba.forecaster import Forecaster
from tsmamba.methods.methods import Task
from tsmamba.methods.names import check_method
from tsmamba.output.table import write_record
from tsmamba.panel.holidays import with_holidays
from tsmamba.panel.panel import Panel
from tsmamba.panel.seasonality import choose_season
from tsmamba.panel.tables import MOST_USUAL, default_horizon, panel_of

_SHOWN = ("mase", "rmsse", "smape", "mae", "mse", "pinball", "crps")


def run_backtest(
    *,
    csv: Path,
    reading: Mapping[str, Any],
    horizon: int | None = None,
    origins: int | None = None,
    stride: int | None = None,
    refit: bool = False,
    methods: Sequence[str] = (),
    holidays: str | None = None,
    model: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Forecasts from rolling origins with several methods, or with a fitted model as it is.

    Args:
        csv, reading, quiet, options: see `tsmamba.commands.forecast.run_forecast`.
        horizon: rows ahead.
        origins, stride: how many past rows to forecast from, and how far apart they lie.
        refit: fit anew at every origin.
        methods: names; all that are worth trying by default, and auto.
        holidays: a country whose holidays models are told.
        model: a run of `tsmamba fit`; what it saw in training is not kept from it.
        out: a folder for `forecasts.csv`, `scores.csv`, `by_series.csv`, `by_horizon.csv` and `backtest.json`.
        overwrite: replace an earlier backtest.

    Raises:
        UserError: something about the file, a method or the folder.
    """
    for name in methods:
        check_method(name)
    check_backtest(csv=csv, reading=reading, model=model, out=out, overwrite=overwrite)
    wanted = asked(**options)
    check_fits(wanted.settings, methods)
    methods = methods or ([] if wanted.method == "auto" else [wanted.method])
    with shown_progress(quiet) as note:
        loaded = Forecaster.load(model) if model is not None else None
        frame = read_for_model(csv, reading, loaded.source_.frequency) if loaded else read_as_told(csv, reading)
        place = holidays if loaded is None else loaded.holidays
        panel = panel_of(with_holidays(frame, place, horizon or MOST_USUAL))
        task = _task(frame, panel, loaded, horizon, wanted)
        rows = rolling_origins(panel.lengths, task.horizon, task.season, count=origins, stride=stride)
        if loaded is not None:
            found = {loaded.selection_.name: roll(loaded.selection_.method, panel, rows, task.season)}
            failed: dict[str, str] = {}
        else:
            found, failed = _compared(panel, task, methods, rows, note, refit)
    found = {name: calibrate(one, panel.select(one.ids), task.season)[0] for name, one in found.items()}
    board = sorted(found.values(), key=lambda one: one.loss())
    result = {
        "horizon": task.horizon, "season": task.season, "frequency": frame.frequency.alias, "origins": len(rows),
        "steps_back": list(rows), "refit": refit, "methods": [_row(one) for one in board], "left_out": failed,
        "by_series": {one.method: _plain(one.by_series()) for one in board},
        "by_horizon": {one.method: _plain(one.by_horizon()) for one in board},
    }  # fmt: skip
    if out is not None:
        _write(out, board, frame, panel, result)
        write_record(
            out, input_files(csv, reading), model, wanted.seed, {"horizon": task.horizon, "origins": len(rows)}
        )
        result["out"] = str(out)
    return {**result, "text": _text(board, result)}


def backtest_table(backtests: Sequence[Backtest], frame: SeriesFrame, panel: Panel) -> pd.DataFrame:
    """Every forecast beside what came: `method, unique_id, cutoff, ds, y, yhat` and quantiles, one row a step.

    `cutoff` is the last time that the forecast knew; times are written as the source writes them.
    """
    parts = []
    by_name = {one.unique_id: one for one in panel.series}
    for one in backtests:
        for place, back in enumerate(one.steps_back):
            for number, name in enumerate(one.ids):
                times = by_name[name].times
                if back >= len(times):
                    continue
                ahead = times[len(times) - back :][: one.horizon]
                rows = len(ahead)
                part = {
                    "method": one.method, "unique_id": name,
                    "cutoff": frame.format_times(times[len(times) - back - 1 :][:1])[0],
                    "ds": frame.format_times(ahead), "y": one.actual[place, number, :rows],
                    "yhat": one.point[place, number, :rows],
                }  # fmt: skip
                shares = one.quantiles[place, number, :rows]
                part |= {f"q{level:g}": shares[:, column] for column, level in enumerate(one.levels)}
                parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _task(
    frame: SeriesFrame,
    panel: Panel,
    loaded: Forecaster | None,
    horizon: int | None,
    wanted: Asked,
) -> Task:
    if loaded is not None:
        if horizon not in (None, loaded.task_.horizon):
            raise UserError("the model has another horizon", found=horizon, accepted=str(loaded.task_.horizon))
        if frame.frequency.alias != loaded.frequency_:
            raise UserError("the series have another step than the model's", found=frame.frequency.alias,
                            accepted=loaded.frequency_)  # fmt: skip
        return loaded.task_
    season = choose_season([one.values for one in panel.series], frame.frequency.seasonal_periods)
    return Task(
        horizon or default_horizon(frame, season), season, wanted.levels, wanted.seed, wanted.max_time, wanted.device,
        dict(wanted.settings),
    )  # fmt: skip


def _compared(
    panel: Panel, task: Task, methods: Sequence[str], rows: Sequence[int], note: Note, refit: bool
) -> tuple[dict[str, Backtest], dict[str, str]]:
    """The named methods (and what `auto` chooses among); `auto` is the choice made at each origin from those before."""
    usual, left_out = candidates(panel, task)
    wants_auto = not methods or "auto" in methods
    names = [name for name in methods if name != "auto"]
    tried = list(dict.fromkeys([*(usual if wants_auto else ()), *names, *(n for n in usual if n in BASELINES)]))
    found, _, _, failed = compare(panel, task, tried, rows, note, refit=refit)
    if wants_auto:
        chosen = honest_choice({name: found[name] for name in usual if name in found}, rows)
        if chosen is not None:
            found["auto"] = chosen
    return found, {**(left_out if wants_auto else {}), **failed}


def _row(one: Backtest) -> dict[str, Any]:
    return {"method": one.method, "origins": len(one.steps_back), **_plain([one.scores()])[0]}


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that JSON can hold: no NaN."""
    return [
        {key: (None if isinstance(v, float | np.floating) and not np.isfinite(v) else v) for key, v in row.items()}
        for row in rows
    ]


def _write(out: Path, board: Sequence[Backtest], frame: SeriesFrame, panel: Panel, result: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with AtomicDirectory(out) as folder:
        backtest_table(board, frame, panel).to_csv(folder / "forecasts.csv", index=False, float_format="%.10g")
        pd.DataFrame(result["methods"]).to_csv(folder / "scores.csv", index=False, float_format="%.10g")
        for name in ("by_series", "by_horizon"):
            tables = [pd.DataFrame(rows).assign(method=method) for method, rows in result[name].items()]
            whole = pd.concat(tables, ignore_index=True)
            whole.insert(0, "method", whole.pop("method"))
            whole.to_csv(folder / f"{name}.csv", index=False, float_format="%.10g")
        (folder / "backtest.json").write_text(json.dumps(result, indent=2, default=float) + "\n", encoding="utf-8")


def _text(board: Sequence[Backtest], result: Mapping[str, Any]) -> str:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="")
    widths = [name for name in result["methods"][0] if name.startswith("coverage_")]
    for name in ("method", *_SHOWN, *widths):
        table.add_column(name.replace("coverage_", "cover "), justify="left" if name == "method" else "right")
    for row in result["methods"]:
        cells = ["" if row[name] is None else f"{row[name]:,.4g}" for name in (*_SHOWN, *widths)]
        table.add_row(str(row["method"]), *cells)
    lines = [
        f"{result['origins']} origins, {result['horizon']:,} rows ahead, season {result['season']}, "
        f"step {result['frequency']}; best first",
        table_text(table),
        *(f"not tried: {name}: {why}" for name, why in result["left_out"].items()),
    ]
    if any(one.method == "auto" for one in board):
        lines.append("auto: at each origin, the method that was best on the origins before it (the first has none)")
    return "\n".join([*lines, *([f"out: {result['out']}"] if "out" in result else [])])
