"""`tsmamba stream`: rows on standard input, forecasts that equal a rerun over the whole history."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from mamba_data_prep.series import Frequency, ReadOptions, TimeFormat
from tsmamba.cli import cli
from tsmamba.config import LEVELS, FitConfig
from tsmamba.evaluation.conformal import Calibration, guessed_shifts, recent_scales
from tsmamba.evaluation.selection import Selection, describe
from tsmamba.fitting.fit import fit_panel
from tsmamba.fitting.fitted import FittedModel
from tsmamba.forecaster import Forecaster
from tsmamba.methods.methods import Learned, Task
from tsmamba.networks import CausalModel
from tsmamba.panel.panel import Panel
from tsmamba.panel.source import Source
from tsmamba.panel.windows import Windows
from tsmamba.streaming.stream import Recent

HORIZON = 3


@pytest.fixture
def panel(hourly: Callable[..., Panel]) -> Panel:
    """Ninety hours, longer than the model's window, with one value missing."""
    whole = hourly(90, 1)
    values = whole.series[0].values.copy()
    values[40] = np.nan
    return replace(whole, series=(replace(whole.series[0], unique_id="load", values=values),))


@pytest.fixture
def fitted(panel: Panel, tiny: Callable[..., FitConfig]) -> FittedModel:
    """A causal model whose forecasts depend on all that it has read."""
    fitted = fit_panel(panel, HORIZON, tiny("causal"))
    assert isinstance(fitted.model, CausalModel)
    torch.manual_seed(0)
    torch.nn.init.normal_(fitted.model.head.weight)
    return fitted


@pytest.fixture
def run_folder(panel: Panel, fitted: FittedModel, tmp_path: Path) -> Path:
    """The model as `tsmamba fit --method causal` leaves it."""
    return saved(panel, fitted, Source(panel.frequency, options=ReadOptions(time=("ds",), target=("load",))), tmp_path)


def saved(panel: Panel, fitted: FittedModel, source: Source, tmp_path: Path) -> Path:
    """A run whose series was read from a table that is written so."""
    task = Task(HORIZON)
    calibration = Calibration(LEVELS, task.season, guessed_shifts(panel, HORIZON, LEVELS, task.season))
    forecaster = Forecaster(HORIZON, "causal")
    forecaster.task_, forecaster.frequency_ = task, panel.frequency.alias
    forecaster.source_ = source
    forecaster.selection_ = Selection(("causal",), Learned("causal", task, fitted), calibration)
    forecaster.about_ = describe(forecaster.selection_)
    forecaster.save(tmp_path / "run" / "model")
    return tmp_path / "run"


def lines(panel: Panel) -> list[str]:
    """The observed rows as CSV: a missing one is left out."""
    one = panel.series[0]
    rows = zip(one.times.astype("datetime64[s]"), one.values, strict=True)
    return [
        "ds,y\n",
        *(f"{str(time).replace('T', ' ')},{float(value)!r}\n" for time, value in rows if np.isfinite(value)),
    ]


def stream(run_folder: Path, rows: list[str], *options: object) -> Result:
    arguments = ["stream", "--model", str(run_folder), *map(str, options)]
    return CliRunner().invoke(cli, arguments, input="".join(rows), catch_exceptions=False)


def rerun(panel: Panel, fitted: FittedModel) -> np.ndarray:
    """The forecasts after each row of the history, read at once: (rows, H)."""
    model, rows = fitted.model, len(panel.series[0])
    assert isinstance(model, CausalModel)
    whole = Windows(panel, fitted.scaler, rows, HORIZON, calendar=fitted.calendar)
    with torch.no_grad():
        scaled = model.every_row(whole.batch(whole.origins([rows], [rows])))[0, 0].double().numpy()
    scale = fitted.scaler.series[panel.series[0].unique_id]
    return scaled * scale.deviation + scale.mean


def test_forecasts_equal_a_rerun_over_the_whole_history(panel: Panel, fitted: FittedModel, run_folder: Path) -> None:
    result = stream(run_folder, lines(panel))
    assert result.exit_code == 0, result.output
    table = pd.read_csv(io.StringIO(result.stdout), parse_dates=["origin", "ds"])
    assert list(table.columns) == ["unique_id", "origin", "ds", "yhat", *(f"q{level:g}" for level in LEVELS)]
    origins = np.flatnonzero(np.isfinite(panel.series[0].values))
    assert len(origins) == 89
    np.testing.assert_allclose(
        table["yhat"].to_numpy().reshape(-1, HORIZON), rerun(panel, fitted)[origins], rtol=1e-5, atol=1e-4
    )
    assert (table["origin"].to_numpy()[::HORIZON] == panel.series[0].times[origins]).all()
    assert (
        (table["ds"] - table["origin"]).to_numpy().reshape(-1, HORIZON) == np.arange(1, 4) * np.timedelta64(1, "h")
    ).all()
    assert bool((np.diff(table.iloc[:, 4:].to_numpy(), axis=1) >= 0).all())


def test_stream_and_forecast_say_the_same_of_the_same_rows(panel: Panel, run_folder: Path, tmp_path: Path) -> None:
    rows = ["ds,load\n", *lines(panel)[1:]]
    (tmp_path / "history.csv").write_text("".join(rows))
    arguments = ["forecast", str(tmp_path / "history.csv"), "--model", str(run_folder), "--json"]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    whole = pd.read_csv(tmp_path / "history.forecast.csv")
    streamed = pd.read_csv(io.StringIO(stream(run_folder, rows).stdout)).tail(HORIZON)
    assert streamed["ds"].tolist() == whole["ds"].tolist()
    figures = ["yhat", *(f"q{level:g}" for level in LEVELS)]
    np.testing.assert_allclose(streamed[figures].to_numpy(), whole[figures].to_numpy(), rtol=1e-6)
    assert bool((whole["q0.975"].to_numpy() > whole["q0.025"].to_numpy()).all())


def test_a_backtest_reads_each_series_once_and_sees_no_future(panel: Panel, fitted: FittedModel) -> None:
    method = Learned("causal", Task(HORIZON), fitted)
    one = panel.series[0]
    edited = replace(panel, series=(replace(one, values=np.where(np.arange(90) < 60, one.values, 1e6)),))
    many = method.predict_many(edited, (50, 30))
    for back, found in zip((50, 30), many, strict=True):
        np.testing.assert_array_equal(found.point, method.predict_many(panel, (50, 30))[(50, 30).index(back)].point)
        np.testing.assert_allclose(found.point, method.predict(panel, back).point, rtol=1e-6)


@pytest.mark.parametrize("before", [[], [7.0] * 4, [np.nan, 7.0, np.nan, 8.0]])
def test_recent_changes_are_those_that_calibration_reads(before: list[float], panel: Panel) -> None:
    values = np.concatenate([before, panel.series[0].values, np.full(500, np.nan), [3.0, np.nan, -4.0]])
    recent = Recent(5)
    for rows, value in enumerate(values, start=1):
        recent.push(float(value))
        part = Panel.wide(values[:rows, None])
        assert recent.scale == pytest.approx(recent_scales(part, (0,), 5)[0, 0], rel=1e-12)
    assert recent.floor == -np.inf


def test_times_are_read_and_written_like_those_fitted_on(
    hourly: Callable[..., Panel], fitted: FittedModel, tmp_path: Path
) -> None:
    """Decimal commas, and hours of a clock that is set back: the repeated hour is two hours."""
    frequency = Frequency.from_alias("h", "Europe/Berlin")
    whole = hourly(90, 1)
    panel = replace(whole, series=(replace(whole.series[0], unique_id="load"),), frequency=frequency)
    options = ReadOptions(delimiter=";", decimal=",", thousands=".", time=("Zeit",), target=("load",))
    run = saved(panel, fitted, Source(frequency, "Europe/Berlin", TimeFormat("%d.%m.%Y %H:%M"), options), tmp_path)
    clock = ["27.10.2024 01:00", "27.10.2024 02:00", "27.10.2024 02:00", "27.10.2024 03:00", "27.10.2024 04:00"]
    result = stream(run, ["\ufeffZeit;load\n", *(f"{time};1.000,5\n" for time in clock[:3])], "--horizon", 2)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(io.StringIO(result.stdout))
    assert table["origin"].tolist() == [clock[0]] * 2 + [clock[1]] * 2 + [clock[2]] * 2
    assert table["ds"].tolist() == clock[1:3] + clock[2:4] + clock[3:5]
    spring = stream(run, ["Zeit;load\n", "31.03.2024 02:30;1\n"])
    assert spring.exit_code == 2
    assert "clocks go forward" in spring.stderr
    offsets = stream(run, ["Zeit;load\n", "2024-10-27T02:00:00+02:00;1\n"], "--horizon", 1)
    assert "2024-10-27T02:00:00+02:00,2024-10-27T02:00:00+01:00" in offsets.stdout


def test_rows_of_several_series_and_covariates(
    hourly: Callable[..., Panel], tiny: Callable[..., FitConfig], tmp_path: Path
) -> None:
    panel = hourly(120, 2)
    extra = [np.random.default_rng(k).normal(size=(120, 1)) for k in range(2)]
    series = tuple(
        replace(one, unique_id=f"a/{name}", past=extra[k])
        for k, (one, name) in enumerate(zip(panel.series, ("x", "y"), strict=True))
    )
    panel = replace(panel, series=series, past_names=("heat",))
    fitted = fit_panel(panel, HORIZON, tiny("causal"))
    torch.nn.init.normal_(fitted.model.get_submodule("head").weight)  # pyright: ignore[reportArgumentType]
    options = ReadOptions(time=("at",), id=("shop", "item"), target=("sold",), past_covariates=("heat",))
    run = saved(panel, fitted, Source(panel.frequency, options=options), tmp_path)
    times = np.datetime_as_string(panel.series[0].times, "s")
    rows = [
        f"{times[row]},{float(one.past[row, 0])!r},a,{one.unique_id[2:]},{float(one.values[row])!r}\n"
        for row in range(120)
        for one in panel.series
    ]
    result = stream(run, ["at,heat,shop,item,sold\n", *rows])
    assert result.exit_code == 0, result.output
    found = pd.read_csv(io.StringIO(result.stdout)).tail(2 * HORIZON)
    assert found["unique_id"].tolist() == ["a/x"] * HORIZON + ["a/y"] * HORIZON
    np.testing.assert_allclose(
        found["yhat"].to_numpy().reshape(2, HORIZON), fitted.predict(panel).point, rtol=1e-5, atol=1e-5
    )
    unknown = stream(run, ["at,heat,shop,item,sold\n", rows[0].replace(",a,", ",b,")])
    assert unknown.exit_code == 2
    assert "does not know this series" in unknown.stderr


def test_a_skipped_step_is_a_blank_value(panel: Panel, run_folder: Path) -> None:
    rows = lines(panel)
    skipped = stream(run_folder, [*rows[:10], *rows[12:16]], "--horizon", 1)
    blank = [f"{row.partition(',')[0]},\n" for row in rows[10:12]]
    told = stream(run_folder, [*rows[:10], *blank, *rows[12:16]], "--horizon", 1)
    assert skipped.exit_code == told.exit_code == 0
    assert skipped.stdout.splitlines()[-4:] == told.stdout.splitlines()[-4:]
    whole = stream(run_folder, rows[:16], "--horizon", 1)
    assert skipped.stdout.splitlines()[-1] != whole.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2024-01-01 01:00:00,3.0\n", "does not follow"),
        ("2024-01-01 03:00:00,3.0\n", "does not follow"),
        ("2024-01-01 04:30:00,3.0\n", "does not follow"),
        ("2031-01-01 04:00:00,3.0\n", "does not follow"),
        ("01.01.2024 04:00,3.0\n", "not like the first"),
        ("2024-01-01 04:00:00,much\n", "not a number"),
        ("2024-01-01 04:00:00\n", "too few fields"),
    ],
    ids=["late", "twice", "off the grid", "years later", "another format", "no number", "half a row"],
)
def test_a_row_that_cannot_follow_is_refused(row: str, message: str, panel: Panel, run_folder: Path) -> None:
    result = stream(run_folder, [*lines(panel)[:5], row])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "line 6" in result.stderr
    assert len(result.stdout.splitlines()) == 1 + 4 * HORIZON  # what came before was answered


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_each_row_is_answered_at_once_and_ctrl_c_ends_it(panel: Panel, run_folder: Path) -> None:
    command = [sys.executable, "-m", "tsmamba", "stream", "--model", str(run_folder), "--horizon", "1"]
    header, *rows = lines(panel)[:4]
    pipe = subprocess.PIPE

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background may have it ignored

    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(header)
        for row in rows:
            child.stdin.write(row)
            child.stdin.flush()
            answer = child.stdout.readline()
            answer = child.stdout.readline() if answer.startswith("unique_id") else answer
            assert row.partition(",")[0] in answer
        child.send_signal(signal.SIGINT)
        errors = child.communicate(timeout=100)[1]
    assert child.returncode == 3, errors
    assert "Traceback" not in errors
