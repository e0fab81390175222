"""The command line as a user meets it: help, outputs, exit codes, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from mamba_configs import preset_text
from tsmamba.cli import cli
from tsmamba.evaluation import selection
from tsmamba.methods.names import LEARNED, LOCAL, PRETRAINED

COMMANDS = ["fit", "forecast", "backtest", "report", "info"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """Eighty days with a weekly season, as `day,sales`, dates the German way, decimal commas."""
    days = pd.date_range("2024-01-01", periods=80, freq="D")
    values = 20 + 5 * (np.arange(80) % 7) + np.random.default_rng(0).normal(0, 0.3, 80)
    lines = [f"{day:%d.%m.%Y};{value:.2f}".replace(".", ",", 0) for day, value in zip(days, values, strict=True)]
    path = tmp_path / "sales.csv"
    path.write_text("day;sales\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"  tsmamba {command} " in result.stdout


def test_a_horizon_below_one_is_refused() -> None:
    result = run("forecast", "sales.csv", "--horizon", 0)
    assert result.exit_code == 2
    assert "accepted: a whole number from 1" in result.stderr


def test_a_level_of_more_than_all_is_refused_in_words() -> None:
    result = run("forecast", "sales.csv", "--level", 150)
    assert result.exit_code == 2
    assert result.stderr.split("error: ")[1].splitlines() == [
        "--level cannot be this", "  found:    150.0", "  accepted: a number above 0 and below 100",
    ]  # fmt: skip


def test_forecast_alone_writes_beside_the_input(sales: Path) -> None:
    before = sales.read_bytes()
    result = run("forecast", sales, "--horizon", 3, "--method", "seasonal_naive")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(sales.with_name("sales.forecast.csv"))
    assert list(table.columns) == ["unique_id", "ds", "yhat", "q0.025", "q0.1", "q0.5", "q0.9", "q0.975"]
    assert table["ds"].tolist() == ["21.03.2024", "22.03.2024", "23.03.2024"]
    record = json.loads(sales.with_name("sales.forecast.csv.json").read_text())
    assert record["inputs"][0]["path"] == str(sales)
    assert record["seed"] == 0
    assert "Nothing was compared: seasonal_naive was asked for" in result.stdout
    assert "saved against each baseline" not in result.stdout
    assert sales.read_bytes() == before


def test_a_named_method_is_the_only_one_that_is_fitted(sales: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[str] = []
    usual = selection.fit_method

    def counted(name: str, *rest: Any, **more: Any) -> Any:
        fitted.append(name)
        return usual(name, *rest, **more)

    monkeypatch.setattr(selection, "fit_method", counted)
    result = run("forecast", sales, "--horizon", 3, "--method", "drift", "--json")
    facts = json.loads(result.stdout)
    assert set(fitted) == {"drift"}
    assert [row["method"] for row in facts["leaderboard"]] == ["drift"]
    assert facts["skill"] == facts["skill_of_choosing"] == {}
    assert 0.5 <= facts["interval_coverage"]["80"] <= 1
    fitted.clear()
    run("forecast", sales, "--horizon", 3, "--method", "drift", "--compare", "--overwrite")
    assert {"naive", "ets", "drift"} <= set(fitted)


def test_names_in_brackets_are_shown_as_they_are(sales: Path, tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    path.write_text(sales.read_text().replace("day;sales", "day [UTC];flow [l/s] [/b]"))
    assert "flow [l/s] [/b] " in run("forecast", path, "--horizon", 2, "--method", "naive").output
    assert "day [UTC] " in run("doctor", path).output


def test_every_output_at_once_and_json(sales: Path, tmp_path: Path) -> None:
    outputs = {"out": tmp_path / "f.parquet", "plot": tmp_path / "f.png", "report": tmp_path / "f.html"}
    options = [word for name, path in outputs.items() for word in (f"--{name}", path)]
    result = run("forecast", sales, "--horizon", 7, "--method", "seasonal_naive", "--compare", "--json", *options)
    facts = json.loads(result.stdout)
    assert facts["method"] == "seasonal_naive"
    assert facts["horizon"] == 7
    assert facts["skill"]["naive"] > 0
    assert {row["method"] for row in facts["leaderboard"]} >= {"naive", "seasonal_naive", "drift", "ets", "theta"}
    assert outputs["plot"].read_bytes()[:4] == b"\x89PNG"
    assert len(pd.read_parquet(outputs["out"])) == 7
    check_page(outputs["report"].read_text())


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.titles.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def check_page(text: str) -> None:
    """Everything is in the page, and it asks the network for nothing."""
    page = _Links()
    page.feed(text)
    assert all(link.startswith("#") for link in page.found), [link for link in page.found if not link.startswith("#")][
        :3
    ]
    assert page.titles.count("svg") == 2
    for heading in ("Forecast", "Leaderboard", "Backtest", "What reading did to the file"):
        assert f"<h2>{heading}</h2>" in text


def test_fit_then_forecast_from_the_run_that_moved(sales: Path, tmp_path: Path) -> None:
    assert run("fit", sales, "--horizon", 4, "--method", "seasonal_naive", "--out", tmp_path / "run").exit_code == 0
    again = run("fit", sales, "--horizon", 4, "--method", "seasonal_naive", "--out", tmp_path / "run")
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    resumed = run(
        "fit", sales, "--horizon", 4, "--method", "seasonal_naive", "--out", tmp_path / "run", "--resume", "--json"
    )
    assert json.loads(resumed.stdout)["method"] == "seasonal_naive"
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    result = run("forecast", sales, "--model", moved, "--out", tmp_path / "f.csv")
    assert result.exit_code == 0, result.output
    fresh = run("forecast", sales, "--horizon", 4, "--method", "seasonal_naive", "--out", tmp_path / "g.csv")
    assert fresh.exit_code == 0
    ours, theirs = pd.read_csv(tmp_path / "f.csv"), pd.read_csv(tmp_path / "g.csv")
    assert np.allclose(ours.iloc[:, 2:], theirs.iloc[:, 2:], rtol=1e-6)
    assert run("info", moved).exit_code == 0
    longer = run("forecast", sales, "--model", moved, "--horizon", 9, "--out", tmp_path / "h.csv")
    assert longer.exit_code == 2
    assert "shorter horizon" in longer.stderr


def test_covariates_of_further_files_reach_the_model_and_are_asked_for_again(tmp_path: Path) -> None:
    """Known ahead from one file, fixed facts from another; the ridge reads neither, but its bundle knows of them."""
    rng, times = np.random.default_rng(1), pd.date_range("2024-01-01", periods=90, freq="D")
    shops = [
        pd.DataFrame({"unique_id": name, "ds": times, "y": 10 + rng.normal(size=90), "price": rng.normal(size=90)})
        for name in ("a", "b")
    ]
    whole = pd.concat(shops, ignore_index=True)
    known = whole["ds"] < times[80]
    whole[known].to_csv(tmp_path / "sales.csv", index=False)
    whole[~known].drop(columns="y").to_csv(tmp_path / "ahead.csv", index=False)
    (tmp_path / "shops.csv").write_text("unique_id,size,town\na,3,Ulm\nb,5,Bonn\n")
    further = ["--future", tmp_path / "ahead.csv", "--static", tmp_path / "shops.csv"]
    fitted = run(
        "fit", tmp_path / "sales.csv", *further, "--horizon", 7, "--method", "ridge", "--out", tmp_path / "run"
    )
    assert fitted.exit_code == 0, fitted.output
    assert "The covariates (price, size, town_Bonn, town_Ulm) play no part in this forecast." in fitted.output
    names = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["names"]
    assert names == {"past": [], "future": ["price"], "static": ["size", "town_Bonn", "town_Ulm"]}
    again = run("forecast", tmp_path / "sales.csv", *further, "--model", tmp_path / "run", "--json")
    assert again.exit_code == 0, again.output
    assert len(pd.read_csv(tmp_path / "sales.forecast.csv")) == 14
    without = run("forecast", tmp_path / "sales.csv", "--model", tmp_path / "run", "--overwrite")
    assert without.exit_code == 2
    assert "other" in without.stderr
    assert "covariates" in without.stderr
    strange = run("forecast", tmp_path / "sales.csv", "--future", tmp_path / "shops.csv", "--horizon", 7, "--overwrite")
    assert strange.exit_code == 2
    assert "shops.csv" in strange.stderr


def test_a_backtest_s_coverage_can_be_recomputed_from_its_table(sales: Path, tmp_path: Path) -> None:
    result = run(
        "backtest",
        sales,
        "--horizon",
        3,
        "--origins",
        12,
        "--method",
        "seasonal_naive",
        "--out",
        tmp_path / "b",
        "--json",
    )
    assert result.exit_code == 0, result.output
    row = next(row for row in json.loads(result.stdout)["methods"] if row["method"] == "seasonal_naive")
    table = pd.read_csv(tmp_path / "b" / "forecasts.csv")
    table = table[table["method"] == "seasonal_naive"]
    assert np.isclose((table["y"] - table["yhat"]).abs().mean(), row["mae"], rtol=1e-5)
    judged = table.dropna()
    inside = (judged["y"] >= judged["q0.1"]) & (judged["y"] <= judged["q0.9"])
    assert np.isclose(inside.mean(), row["coverage_80"], rtol=1e-5)
    assert table.groupby("cutoff").size().tolist() == [3] * 12


def test_mistakes_are_told_in_one_message(sales: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["forecast", tmp_path / "none.csv"], "no such file"),
        (["forecast", sales, "--method", "magic"], "no such method"),
        (["forecast", sales, "--out", sales], "the output is the input"),
        (["forecast", sales, "--out", "f.xls"], "unknown ending"),
        (["forecast", sales, "--model", tmp_path], "config.json"),
        (["info", "nothing"], "nothing of that name"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_info_tells_what_a_file_is(sales: Path) -> None:
    facts = json.loads(run("info", sales, "--json").stdout)
    assert facts["frequency"] == "D"
    assert facts["rows"] == 80


def test_info_prints_a_preset_that_is_a_configuration(sales: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(run("info", "auto").stdout)
    out = tmp_path / "run"
    done = run("fit", sales, "--horizon", "3", "--config", tmp_path / "mine.yaml", "--out", out)
    assert done.exit_code == 0, done.output


def test_info_without_a_name_tells_the_versions() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert {"seqmamba", "torch", "python"} <= facts["versions"].keys()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """The signal arrives while methods are being compared."""
    path = tmp_path / "long.csv"
    rows = np.arange(4000)
    pd.DataFrame({"row": rows, **{f"s{k}": np.sin(rows / 7 + k) for k in range(6)}}).to_csv(path, index=False)
    child = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _, errors = child.communicate(timeout=250)
    assert child.returncode == 3, errors
    assert "stopped: by the keyboard" in errors
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["long.csv"]


_INTERRUPTED = f"""
import os, signal, sys, tsmamba.evaluation.selection
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background may have it ignored
real = tsmamba.evaluation.selection.roll
def roll(*arguments, **named):
    os.kill(os.getpid(), {int(signal.SIGINT)})
    return real(*arguments, **named)
tsmamba.evaluation.selection.roll = roll
from mamba_configs import preset_text
from tsmamba.cli import cli
cli(["forecast", sys.argv[1], "--horizon", "5"], prog_name="tsmamba")
"""


SMALL = ["--set", "network.d_model=8", "--set", "train.epochs=1", "--set", "train.most_steps=4"]


def test_settings_reach_the_network_and_are_kept_with_the_run(sales: Path, tmp_path: Path) -> None:
    """A copied preset is a configuration: its model is the method, its seed and levels hold."""
    text = preset_text("tsmamba", "causal").replace("lookback: 256", "lookback: 20").replace("seed: 0", "seed: 5")
    (tmp_path / "mine.yaml").write_text(text.replace("[0.025, 0.1, 0.5, 0.9, 0.975]", "[0.25, 0.5, 0.75]"))
    run_folder = tmp_path / "run"
    options = ["--config", tmp_path / "mine.yaml", *SMALL, "--horizon", 2, "--out", run_folder]
    fitted = run("fit", sales, *options)
    assert fitted.exit_code == 0, fitted.output
    model = json.loads((run_folder / "model" / "config.json").read_text())
    assert model["settings"]["model"] == "causal"
    assert model["settings"]["network"]["d_model"] == 8
    assert model["settings"]["lookback"] == 20
    assert (model["settings"]["seed"], model["forecaster"]["task"]["seed"]) == (5, 5)
    assert model["forecaster"]["task"]["levels"] == [0.25, 0.5, 0.75]
    again = run("fit", sales, "--out", run_folder, "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["method"] == "causal"
    other = run("fit", sales, "--out", run_folder, "--resume", "--seed", 6)
    assert other.exit_code == 2
    assert "seed was 5 and is now 6" in other.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "train.epoch=5"], ["no setting train.epoch", "did you mean train.epochs?"]),
        (["--set", "train.epochs=none"], ["train.epochs cannot be this", "none", "a whole number from 1 to 10000"]),
        (["--set", "model=causal"], ["a model is chosen by its method", "--method NAME"]),
        (["--config", "smamb"], ["no such preset", "did you mean smamba?"]),
        (["--config", "smamba", "--method", "theta"], ["for the model smamba", "theta"]),
        (["--config", "twice.yaml"], ["twice.yaml, line 2", "the same key twice"]),
        (["--config", "wrong.yaml"], ["wrong.yaml, line 3", "train.lr cannot be this", "-1", "between 0 and 1"]),
    ],
)
def test_wrong_settings_are_refused_before_the_file_is_read(
    options: list[str], words: list[str], sales: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sales.parent)
    Path("twice.yaml").write_text("seed: 1\nseed: 2\n")
    Path("wrong.yaml").write_text("seed: 1\ntrain:\n  lr: -1\n")
    result = run("forecast", sales, "--horizon", 2, *options)
    assert result.exit_code == 2
    assert [word for word in words if word not in result.stderr] == []


def test_an_output_that_exists_is_kept_unless_told_otherwise(sales: Path, tmp_path: Path) -> None:
    line = ["forecast", sales, "--horizon", 2, "--method", "naive", "--out", tmp_path / "f.csv"]
    assert run(*line).exit_code == 0
    again = run(*line)
    assert again.exit_code == 2
    assert "f.csv: this exists already" in again.stderr
    assert run(*line, "--overwrite").exit_code == 0
    assert run(*line, "--force").exit_code == 0


@pytest.mark.parametrize(
    "words", [["--horizon", "2", "--horizon", "3"], ["--time", "a", "--time=b"], ["--dayfirst", "--monthfirst"]]
)
def test_an_option_given_twice_is_refused_where_one_would_be_lost(words: list[str], sales: Path) -> None:
    result = run("forecast", sales, *words)
    assert result.exit_code == 2
    assert f"{words[0]} is given 2 times" in result.stderr


def test_two_columns_may_name_a_series(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=40)
    rows = [f"{s},{i},{day:%Y-%m-%d},{n % 7 + s + i}" for s in (1, 2) for i in (1, 2) for n, day in enumerate(days)]
    path = tmp_path / "panel.csv"
    path.write_text("\n".join(("store,item,ds,y", *rows, "")))
    out = tmp_path / "next.csv"
    told = ("--id", "store", "--id", "item", "--horizon", 3, "--method", "naive", "--out", out)
    assert run("forecast", path, *told).exit_code == 0
    assert pd.read_csv(out)["unique_id"].unique().tolist() == ["1/1", "1/2", "2/1", "2/2"]


def test_help_names_every_method() -> None:
    shown = " ".join(run("forecast", "--help").output.split())
    named = shown[shown.index("or one of:") : shown.index("--config")]
    assert all(re.search(rf"\b{name}\b", named) for name in (*LOCAL, *PRETRAINED, *LEARNED))


def test_a_short_table_is_forecast_without_what_training_needs(sales: Path) -> None:
    code = (
        "import sys, click\nfrom tsmamba.cli import cli\n"
        f"try: cli(['forecast', {str(sales)!r}, '--horizon', '3'], prog_name='tsmamba')\nexcept SystemExit: pass\n"
        "heavy = {'lightning', 'torchmetrics', 'transformers', 'torch._dynamo', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("HEAVY [] True")
    assert sales.with_name("sales.forecast.csv").is_file()
