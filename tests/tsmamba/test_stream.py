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

from tsmamba.cli import cli
from tsmamba.config import LEVELS, FitConfig
from tsmamba.conformal import Calibration, guessed_shifts
from tsmamba.fit import fit_panel
from tsmamba.fitted import FittedModel
from tsmamba.forecaster import Forecaster
from tsmamba.methods import Learned, Task
from tsmamba.models import CausalModel
from tsmamba.panel import Panel
from tsmamba.selection import Selection, describe
from tsmamba.windows import Windows

HORIZON = 3


@pytest.fixture
def panel(hourly: Callable[..., Panel]) -> Panel:
    """Ninety hours, longer than the model's window, with one value missing."""
    whole = hourly(90, 1)
    values = whole.series[0].values.copy()
    values[40] = np.nan
    return replace(whole, series=(replace(whole.series[0], values=values),))


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
    task = Task(HORIZON)
    calibration = Calibration(LEVELS, task.season, guessed_shifts(panel, HORIZON, LEVELS, task.season))
    forecaster = Forecaster(HORIZON, "causal")
    forecaster.task_, forecaster.frequency_ = task, panel.frequency.alias
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
