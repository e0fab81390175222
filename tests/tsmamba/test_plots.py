"""Pictures: what is in them, for one series and for many, with gaps, wide intervals and odd names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from mamba_data_prep.series import SeriesFrame
from tsmamba.evaluation.backtest import Backtest
from tsmamba.output.plots import coverage_figure, forecast_figure, save_figure, svg
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.tables import frame_of

HORIZON, LEVELS = 4, (0.025, 0.1, 0.5, 0.9, 0.975)


def series(count: int = 1, rows: int = 40, zone: str | None = None) -> SeriesFrame:
    times = pd.date_range("2024-03-01", periods=rows, freq="h", tz=zone)
    parts = [pd.DataFrame({"unique_id": f"s{k}", "ds": times, "y": np.arange(rows) % 5 + k}) for k in range(count)]
    return frame_of(pd.concat(parts, ignore_index=True).astype({"y": float}))


def forecast(ids: list[str], width: float = 1.0) -> Forecast:
    point = np.full((len(ids), HORIZON), 2.0)
    return Forecast(tuple(ids), LEVELS, point, point[..., None] + width * np.array([-2.0, -1, 0, 1, 2]))


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_history_forecast_and_intervals_are_drawn_where_they_belong() -> None:
    frame = series()
    (axes,) = forecast_figure(frame, forecast(["s0"]), "a title").axes
    lines = {line.get_label(): line for line in axes.lines}
    observed, ahead = lines["observed"].get_xydata(), lines["forecast"].get_xydata()
    assert len(np.asarray(observed)) == 40
    assert np.asarray(ahead)[:, 1].tolist() == [2.0] * HORIZON
    steps = np.diff(np.concatenate([np.asarray(observed)[-2:, 0], np.asarray(ahead)[:, 0]]))
    np.testing.assert_allclose(steps, 1 / 24, rtol=1e-6)
    labels = [one.get_label() for one in axes.collections]
    assert labels == ["95 % interval", "80 % interval"]
    legend = axes.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} >= {"observed", "forecast", "80 % interval"}


def test_times_are_those_of_the_clock_on_the_wall() -> None:
    frame = series(zone="Asia/Tokyo")
    (axes,) = forecast_figure(frame, forecast(["s0"]), "").axes
    first = float(np.asarray(axes.lines[0].get_xydata())[0, 0])
    assert first == (np.datetime64("2024-03-01") - np.datetime64("1970-01-01")).astype(int)


def test_values_without_neighbours_are_marked() -> None:
    frame = series()
    frame.frame.loc[[10, 12], "y"] = np.nan
    (axes,) = forecast_figure(frame, forecast(["s0"]), "").axes
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert np.asarray(dots[0].get_xydata()).shape == (1, 2)


def test_a_wide_interval_is_cut_and_says_how_far_it_reaches() -> None:
    frame = series()
    (plain,) = forecast_figure(frame, forecast(["s0"]), "").axes
    assert texts(plain) == []
    (wide,) = forecast_figure(frame, forecast(["s0"], width=1000.0), "").axes
    assert wide.get_ylim()[1] < 20
    assert texts(wide) == ["interval to 2,002", "interval to -1,998"]


def test_a_constant_series_has_an_axis_that_people_can_read() -> None:
    frame = series()
    frame.frame["y"] = 2.0
    (axes,) = forecast_figure(frame, forecast(["s0"], width=0.0), "").axes
    low, high = axes.get_ylim()
    assert low < 2.0 - 0.005 < 2.0 + 0.005 < high < 2.5


def test_many_series_have_panels_of_their_own_and_the_rest_is_counted() -> None:
    frame = series(14)
    figure = forecast_figure(frame, forecast(frame.ids), "all")
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in drawn] == [f"s{k}" for k in range(12)]
    assert "(the first 12 of 14 series)" in figure.get_suptitle()


def test_large_numbers_have_no_powers_of_ten() -> None:
    frame = series()
    frame.frame["y"] = frame.frame["y"] * 1e6
    (axes,) = forecast_figure(frame, forecast(["s0"]), "").axes
    assert axes.yaxis.get_major_formatter()(2_000_000, 0) == "2,000,000"


def test_a_name_is_no_mathematics(tmp_path: Path) -> None:
    frame = series()
    renamed = frame_of(frame.frame.assign(unique_id="$\\frac{"))
    save_figure(forecast_figure(renamed, forecast(renamed.ids), "$x_{"), tmp_path / "odd.png")
    assert (tmp_path / "odd.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_name_of_any_script_is_drawn_without_a_warning(ending: str, tmp_path: Path) -> None:
    frame = series()
    renamed = frame_of(frame.frame.assign(unique_id="東京の気温"))
    save_figure(forecast_figure(renamed, forecast(renamed.ids), "서울"), tmp_path / f"tokyo.{ending}")
    assert (tmp_path / f"tokyo.{ending}").stat().st_size > 10_000


def backtest() -> Backtest:
    rng = np.random.default_rng(0)
    actual, shape = rng.normal(size=(6, 1, HORIZON)), (6, 1, HORIZON, len(LEVELS))
    quantiles = np.broadcast_to([-3.0, -1, 0, 1, 3], shape).copy()
    one = np.ones(1)
    return Backtest("m", ("s0",), LEVELS, (9, 8, 7, 6, 5, 4), actual, 0 * actual, quantiles, one, one)


def test_the_latest_unseen_forecast_is_drawn_over_what_came() -> None:
    past = replace(backtest(), point=backtest().point + 50)
    (axes,) = forecast_figure(series(), forecast(["s0"]), "", past).axes
    assert axes.get_ylim()[1] > 50
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert np.asarray(dashed.get_xydata())[:, 1].tolist() == past.point[5, 0].tolist()
    assert np.asarray(dashed.get_xydata())[-1, 0] == np.asarray(axes.lines[0].get_xydata())[-1, 0]


def test_coverage_is_drawn_step_by_step() -> None:
    past = backtest()
    left, right = coverage_figure(past).axes
    shown = {line.get_label(): np.asarray(line.get_ydata()) for line in left.lines if line.get_marker() == "."}
    inside = 100 * (np.abs(past.actual) <= 1).mean(axis=(0, 1))
    np.testing.assert_allclose(shown["80 % interval"], inside)
    np.testing.assert_allclose(np.asarray(right.lines[0].get_ydata()), np.abs(past.actual).mean(axis=(0, 1)))


@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_every_format_is_written(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{ending}"
    save_figure(forecast_figure(series(), forecast(["s0"]), "title"), path)
    content = path.read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".html": b"<!doctype html>"}[ending])
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_page_gets_the_element_alone() -> None:
    text = svg(coverage_figure(backtest()))
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
