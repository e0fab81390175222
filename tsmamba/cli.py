"""The command line. Each command checks its arguments, imports what it needs and calls one function.

Nothing heavy is imported at the top, so that help, completion and argument errors answer at once.
Exit codes: 0 done, 2 the user's input, 3 stopped but resumable, 1 a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mamba_configs.command_line import (
    FILE,
    Commands,
    json_option,
    overwrite_option,
    print_result,
    settings_options,
    stop_on_sigterm,
)

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  tsmamba doctor sales.csv
  tsmamba forecast sales.csv --horizon 24
  tsmamba forecast sales.csv --horizon 24 --plot sales.png --report sales.html
  tsmamba fit sales.csv --horizon 24 --out runs/sales
  tsmamba forecast new.csv --model runs/sales
  tsmamba backtest sales.csv --horizon 24
""",
)
@click.version_option(package_name="seqmamba", prog_name="tsmamba")
def cli() -> None:
    """Forecast time series, with intervals, and with an honest word on whether Mamba helped."""
    stop_on_sigterm()


def _reading(command: CommandT) -> CommandT:
    """The options that say what the columns of a file are; all of them are found out where they are left out."""
    for option in (
        click.option(
            "--read",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="A reading rule, e.g. duplicates=mean; repeatable.",
        ),
        click.option("--rules", type=FILE, metavar="FILE", help="Reading rules that `tsmamba doctor` wrote (YAML)."),
        click.option("--timezone", metavar="ZONE", help="Zone of times that carry none, e.g. Europe/Berlin."),
        click.option("--dayfirst/--monthfirst", "dayfirst", default=None, help="How to read 03/04/2021."),
        click.option(
            "--freq",
            metavar="FREQ",
            help="Step of the series, e.g. h, 15min, D, W-SUN, SMS, MS, or open times, e.g. 'h Mon-Fri 08:00-18:00'; "
            "h or D alone switches open times off that were found.",
        ),
        click.option("--sheet", metavar="NAME", help="Sheet of an Excel workbook; the first by default."),
        click.option("--static", type=FILE, metavar="FILE", help="A row of features for each series."),
        click.option("--future", type=FILE, metavar="FILE", help="Covariates that are known for the time to come."),
        click.option(
            "--id", "id_column", multiple=True, metavar="COLUMN", help="Column that names the series; repeatable."
        ),
        click.option("--target", "targets", multiple=True, metavar="COLUMN", help="What to forecast; repeatable."),
        click.option("--time", "time_column", metavar="COLUMN", help="Column of times."),
    ):
        command = option(command)
    return command


_READING = (
    "time_column",
    "targets",
    "id_column",
    "future",
    "static",
    "freq",
    "sheet",
    "dayfirst",
    "timezone",
    "rules",
    "settings",
)


def _check_asked(options: dict[str, Any], **more: Any) -> None:
    """Refuses wrong settings before torch is imported, which takes seconds."""
    from tsmamba.commands.asked import asked

    names = ("config", "overrides", "method", "levels", "seed", "max_time", "device", "compare")
    asked(**{name: options[name] for name in names if name in options}, **more)


def _taken(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options of `_reading` out of a command's options."""
    return {name: options.pop(name) for name in _READING}


_csv = click.argument("csv", type=FILE)
_seed = click.option("--seed", type=click.IntRange(0), help="Makes results repeatable; 0 by default.")
_horizon = click.option(
    "--horizon", type=click.IntRange(1), metavar="H", help="Steps ahead; one season or more by default."
)
_method = click.option(
    "--method",
    metavar="NAME",
    help="auto (by default), or one of: naive, seasonal_naive, drift, ets, theta, arima, croston, zero, ridge, mamba, "
    "smamba, tsmamba, causal; with _x behind it (ridge_x) what covariates known ahead add is taken off first, with "
    "_log behind a learnt one (ridge_log) it learns logarithms.",
)
_compare = click.option(
    "--compare",
    is_flag=True,
    default=None,
    help="Compare the method that --method names with the baselines; without it nothing is compared. auto always is.",
)
_levels = click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="PERCENT",
    help="Width of an interval in percent; repeatable; 80 and 95 by default.",
)
_holidays = click.option("--holidays", metavar="COUNTRY", help="Tell models public holidays, e.g. of DE or US-CA.")
_device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="auto by default.")
_max_time = click.option("--max-time", metavar="TIME", help="Training stops after so long: 90s, 5m, 1h.")
_short_time = click.option(
    "--max-time", metavar="TIME", help="Each training stops after so long: 90s, 5m, 1h; 3m by default."
)
_SHORT = "3m"
"""Unless a configuration says otherwise, a training of `forecast` and `report` takes at most so long."""


@cli.command(
    epilog="""\b
Examples:
  tsmamba forecast sales.csv --horizon 24
  tsmamba forecast sales.csv --horizon 24 --out next.parquet --plot next.png --report next.html
  tsmamba forecast panel.csv --id store --time day --target sales --future holidays.csv
  tsmamba forecast new.csv --model runs/sales
"""
)
@_csv
@_horizon
@click.option("--model", type=FILE, metavar="RUN", help="A run made by `tsmamba fit`; fitted anew without it.")
@click.option("--out", type=FILE, help="Table: .csv .tsv .xlsx .parquet .json .jsonl; CSV.forecast.csv by default.")
@click.option("--plot", type=FILE, help="Picture: .png, .svg or .html.")
@click.option("--report", type=FILE, help="One offline page with everything: .html.")
@_method
@_compare
@settings_options
@_holidays
@_levels
@_reading
@_short_time
@_device
@_seed
@overwrite_option
@json_option
def forecast(csv: Path, as_json: bool, **options: Any) -> None:
    """Forecast the series in CSV: what comes next, how sure that is, and what simpler methods would say."""
    reading = _taken(options)
    from tsmamba.commands.checks import beside, check_forecast

    outputs = {name: options[name] for name in ("out", "plot", "report", "overwrite")}
    outputs["out"] = outputs["out"] or beside(csv, ".forecast.csv")
    check_forecast(csv=csv, reading=reading, model=options["model"], **outputs)
    _check_asked(options, limit=_SHORT)
    from tsmamba.commands.forecast import run_forecast

    print_result(run_forecast(csv=csv, reading=reading, quiet=as_json, limit=_SHORT, **options), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba fit sales.csv --horizon 24 --out runs/sales
  tsmamba fit sales.csv --out runs/sales --resume
"""
)
@_csv
@_horizon
@click.option("--out", type=FILE, required=True, metavar="RUN", help="Folder of the run.")
@_method
@_compare
@settings_options
@_holidays
@_levels
@_reading
@_max_time
@_device
@_seed
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@json_option
def fit(csv: Path, as_json: bool, **options: Any) -> None:
    """Fit a forecaster on CSV and keep it, with its backtest, for later forecasts."""
    reading = _taken(options)
    from tsmamba.commands.checks import check_fit

    check_fit(csv=csv, reading=reading, out=options["out"], resume=options["resume"])
    _check_asked(options)
    from tsmamba.commands.fit import run_fit

    print_result(run_fit(csv=csv, reading=reading, quiet=as_json, **options), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba backtest sales.csv --horizon 24
  tsmamba backtest sales.csv --horizon 24 --origins 10 --method ets --method auto --out backtest/
"""
)
@_csv
@_horizon
@click.option("--origins", type=click.IntRange(1), metavar="N", help="Past dates to forecast from; chosen by default.")
@click.option(
    "--stride", type=click.IntRange(1), metavar="STEPS", help="Steps between origins; the horizon by default."
)
@click.option("--refit/--no-refit", default=False, show_default=True, help="Fit anew at every origin.")
@click.option("--method", "methods", multiple=True, metavar="NAME", help="Which methods; repeatable; all by default.")
@click.option("--model", type=FILE, metavar="RUN", help="A run made by `tsmamba fit`, measured as it is.")
@click.option("--out", type=FILE, metavar="FOLDER", help="Folder for forecasts and scores.")
@settings_options
@_holidays
@_levels
@_reading
@_max_time
@_device
@_seed
@overwrite_option
@json_option
def backtest(csv: Path, as_json: bool, **options: Any) -> None:
    """Forecast from past dates, never seeing what followed, and compare with what came."""
    reading = _taken(options)
    from tsmamba.commands.checks import check_backtest
    from tsmamba.methods.names import check_method

    for name in options["methods"]:
        check_method(name)
    outputs = {name: options[name] for name in ("model", "out", "overwrite")}
    check_backtest(csv=csv, reading=reading, **outputs)
    _check_asked(options)
    from tsmamba.commands.backtest import run_backtest

    print_result(run_backtest(csv=csv, reading=reading, quiet=as_json, **options), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba report sales.csv --horizon 24
  tsmamba report sales.csv --model runs/sales --out sales.html
"""
)
@_csv
@_horizon
@click.option("--model", type=FILE, metavar="RUN", help="A run made by `tsmamba fit`; fitted anew without it.")
@click.option("--out", type=FILE, help="The page; CSV.report.html by default.")
@_method
@_compare
@settings_options
@_holidays
@_levels
@_reading
@_short_time
@_device
@_seed
@overwrite_option
@json_option
def report(csv: Path, as_json: bool, **options: Any) -> None:
    """Write one offline page: series, forecast, intervals, backtest, leaderboard and what reading did to the file."""
    reading = _taken(options)
    from tsmamba.commands.checks import beside, check_forecast

    page = options["out"] or beside(csv, ".report.html")
    check_forecast(csv=csv, reading=reading, model=options["model"], report=page, overwrite=options["overwrite"])
    _check_asked(options, limit=_SHORT)
    from tsmamba.commands.forecast import run_report

    print_result(run_report(csv=csv, reading=reading, quiet=as_json, limit=_SHORT, **options), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba doctor sales.csv
  tsmamba doctor export.csv --dayfirst --read duplicates=mean --out sales.csv
"""
)
@_csv
@click.option("--out", type=FILE, help="The cleaned table; CSV.clean.csv by default.")
@click.option("--rules-out", type=FILE, help="The rules that give it again; CSV.rules.yaml by default.")
@_reading
@overwrite_option
@json_option
def doctor(csv: Path, as_json: bool, **options: Any) -> None:
    """Tell how CSV is read and what is repaired; write the cleaned table and its rules."""
    reading = _taken(options)
    from tsmamba.commands.doctor import run_doctor

    print_result(run_doctor(csv=csv, reading=reading, quiet=as_json, **options), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba fit sales.csv --horizon 24 --method causal --out runs/sales
  tail -n +1 -f sales.csv | tsmamba stream --model runs/sales
"""
)
@click.option("--model", type=FILE, required=True, metavar="RUN", help="A run made by `tsmamba fit --method causal`.")
@_horizon
def stream(model: Path, horizon: int | None) -> None:
    """Read rows from standard input and print a forecast after each, in constant time and memory."""
    from mamba_training.folders import model_folder

    model_folder(model)
    from tsmamba.commands.stream import run_stream

    for line in run_stream(sys.stdin, model, horizon):
        sys.stdout.write(line)
        sys.stdout.flush()


@cli.command(
    epilog="""\b
Examples:
  tsmamba pretrain --out runs/zero
  tsmamba pretrain --out runs/zero --max-time 2h
  tsmamba pretrain --out runs/zero --resume
"""
)
@click.option("--out", type=FILE, required=True, metavar="RUN", help="Folder of the run.")
@click.option("--max-time", metavar="TIME", help="Training ends after so long in all: 20m, 10h; 10h by default.")
@click.option("--max-steps", type=click.IntRange(1), metavar="N", help="Training ends after so many steps.")
@click.option(
    "--backbone",
    type=click.Choice(["mamba", "mlp", "identity"]),
    help="What reads the history, mamba by default; the others are there to be compared with.",
)
@_device
@_seed
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@json_option
def pretrain(as_json: bool, **options: Any) -> None:
    """Train the forecaster `zero` again: on synthetic series, drawn anew at every step."""
    from mamba_training.folders import check_run_folder
    from mamba_training.settings import parse_duration

    if options["max_time"] is not None:
        parse_duration(options["max_time"])
    check_run_folder(options["out"], options["resume"])
    from tsmamba.commands.pretrain import run_pretrain

    print_result(run_pretrain(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba info
  tsmamba info runs/sales
  tsmamba info sales.csv
  tsmamba info auto
"""
)
@click.argument("what", required=False, metavar="[MODEL|RUN|CSV|PRESET]")
@json_option
def info(what: str | None, as_json: bool) -> None:
    """Tell what a run, a file or a preset is; without a name, which versions and methods there are."""
    from tsmamba.commands.info import run_info

    print_result(run_info(what), as_json)


@cli.command(
    epilog="""\b
Examples:
  tsmamba benchmark etth1 --data ETTh1.csv --horizon 96
  tsmamba benchmark custom --data weather.csv --horizon 336 --lookback 96 --model smamba --seeds 1
"""
)
@click.argument("name", type=click.Choice(["etth1", "etth2", "ettm1", "ettm2", "custom"]))
@click.option("--data", type=FILE, required=True, metavar="FILE", help="Wide CSV: times, then one column a channel.")
@click.option("--horizon", type=click.IntRange(1), required=True, metavar="H", help="Steps ahead: 96, 192, 336, 720.")
@click.option("--lookback", type=click.IntRange(1), metavar="L", help="Steps of history; chosen on validation rows.")
@click.option(
    "--model",
    type=click.Choice(["auto", "ridge", "smamba", "tsmamba", "causal"]),
    default="auto",
    show_default=True,
    help="What to fit.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How many models are fitted.")
@settings_options
@json_option
def benchmark(name: str, as_json: bool, **options: Any) -> None:
    """Score a model on a long-horizon data set by the exact protocol, beside the published figures."""
    from mamba_data_prep.outputs import check_input
    from tsmamba.config import load_config

    check_input(options["data"])
    load_config(options["config"] or options["model"], options["overrides"])
    from tsmamba.benchmark.long_horizon import run_benchmark

    print_result(run_benchmark(name, quiet=as_json, **options), as_json)


def main() -> None:
    """Entry point of the `tsmamba` program."""
    cli(prog_name="tsmamba")
