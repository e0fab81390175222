"""The benchmark scores every test window by the protocol, and its figures are those of a plain computation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mamba_data_prep.errors import UserError
from tsmamba.benchmark.long_horizon import Borders, read_rows, run_benchmark, score_test
from tsmamba.benchmark.published import HORIZONS, published_rows
from tsmamba.config import FitConfig
from tsmamba.fitting.fit import fit_panel
from tsmamba.panel.panel import Panel


def wide_csv(panel: Panel, path: Path) -> Path:
    table = pd.DataFrame({one.unique_id: one.values for one in panel.series})
    table.insert(0, "date", pd.DatetimeIndex(panel.series[0].times))
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("name", "rows", "borders"),
    [
        ("etth1", 17420, (8640, 11520, 14400)),
        ("ettm2", 69680, (34560, 46080, 57600)),
        ("custom", 52696, (36887, 42157, 52696)),
    ],
)
def test_borders_are_those_of_the_protocol(name: str, rows: int, borders: tuple[int, int, int]) -> None:
    assert tuple(vars(Borders.of(name, rows)).values()) == borders


@pytest.mark.parametrize(("horizon", "windows"), list(zip(HORIZONS, (2785, 2689, 2545, 2161), strict=True)))
def test_the_full_test_set_has_its_windows(horizon: int, windows: int) -> None:
    borders = Borders.of("etth1", 17420)
    assert borders.test - borders.valid - horizon + 1 == windows


def test_scores_are_those_of_a_plain_computation(hourly: Callable[..., Panel], tiny: Callable[..., FitConfig]) -> None:
    panel, horizon = hourly(400, 2), 12
    borders = Borders.of("custom", 400)
    fitted = fit_panel(panel.before(400 - borders.valid), horizon, tiny("ridge", valid_rows=40, refit=False))
    found = score_test(fitted, panel, borders)
    errors = []
    for end in range(borders.valid, borders.test - horizon + 1):
        forecast = fitted.predict(panel, 400 - end).point
        for one, row in zip(panel.series, forecast, strict=True):
            training = one.values[: borders.train]
            errors.append((row - one.values[end : end + horizon]) / training.std())
    assert found.windows == len(errors) // 2 == 80 - 12 + 1
    assert found.mse == pytest.approx(float(np.square(errors).mean()), rel=1e-5)
    assert found.mae == pytest.approx(float(np.abs(errors).mean()), rel=1e-5)
    kept = np.square(errors[: found.windows // 32 * 32 * 2]).mean()
    assert found.dropped["32"][0] == pytest.approx(float(kept), rel=1e-5)


def test_a_benchmark_reports_every_seed_and_what_stands_beside(hourly: Callable[..., Panel], tmp_path: Path) -> None:
    path = wide_csv(hourly(500, 2), tmp_path / "waves.csv")
    result = run_benchmark("custom", path, 12, lookback=24, model="ridge", quiet=True)
    assert result["borders"] == {"train": 350, "valid": 400, "test": 500}
    assert [row["model"] for row in result["beside"]] == ["naive", "seasonal naive (24)"]
    assert result["summary"]["mse"] < 0.5 * result["beside"][0]["mse"]
    values = read_rows(path).series[0].values
    scale = values[:350].std()
    naive = [(values[end : end + 12] - values[end - 1]) / scale for end in range(400, 489)]
    other = read_rows(path).series[1].values
    naive += [(other[end : end + 12] - other[end - 1]) / other[:350].std() for end in range(400, 489)]
    assert result["beside"][0]["mse"] == pytest.approx(float(np.square(naive).mean()))
    assert "all 89 test windows" in result["text"]


def test_published_rows_are_those_of_the_horizon() -> None:
    rows = {(row["model"], row["lookback"]): (row["mse"], row["mae"]) for row in published_rows("etth1", 720)}
    assert rows["S-Mamba", "96"] == (0.502, 0.489)
    assert rows["NLinear", "long"] == (0.440, 0.453)
    assert {row["model"]: row["mse"] for row in published_rows("ettm2", 192)} == {"TQNet": 0.238, "xPatch": 0.216}
    assert published_rows("etth1", 24) == published_rows("custom", 96) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("date,a\n2024-01-01,x\n", "are numbers"), ("date\n2024-01-01\n", "are numbers"), ("", "cannot be read")],
    ids=["text", "no channel", "empty"],
)
def test_files_that_are_no_benchmark_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / "bad.csv")


def test_a_file_that_is_too_short_is_refused() -> None:
    with pytest.raises(UserError, match="more rows than this file"):
        Borders.of("etth1", 100)
