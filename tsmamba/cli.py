"""`tsmamba`: forecasting on the command line. This version has the names and the plan, not yet the commands.

Nothing here imports torch or pandas, so help and the refusal answer at once.
"""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import click

NOT_YET = 2
"""Exit code of a command that this version does not have: the request cannot be met, and nothing was written."""


def _refuse(command: str, purpose: str) -> None:
    """Say what the command will do, that it is not here yet, and leave with exit code 2."""
    version = metadata.version("seqmamba")
    click.echo(
        f"tsmamba {command} is not in seqmamba {version}. It will {purpose}. Nothing was read or written.", err=True
    )
    raise SystemExit(NOT_YET)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="seqmamba", prog_name="tsmamba")
def main() -> None:
    """Forecast time series with Mamba models.

    This version has only `info`: `fit`, `forecast` and `backtest` say what they will do and exit with code 2.
    """


@main.command()
@click.argument("csv", type=click.Path(path_type=Path))
@click.option("--horizon", type=click.IntRange(min=1), required=True, help="How many steps ahead.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run's folder.")
def fit(csv: Path, horizon: int, out: Path) -> None:
    """Train a forecaster on CSV (not in this version)."""
    _refuse("fit", f"train a model on {csv} that forecasts {horizon} steps, and write it to {out}")


@main.command()
@click.argument("csv", type=click.Path(path_type=Path))
@click.option("--horizon", type=click.IntRange(min=1), required=True, help="How many steps ahead.")
@click.option("--model", type=click.Path(path_type=Path), help="A run made by `tsmamba fit`.")
@click.option("--out", type=click.Path(path_type=Path), help="Table to write: .csv, .parquet or .json.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture to write: .png or .html.")
def forecast(csv: Path, horizon: int, model: Path | None, out: Path | None, plot: Path | None) -> None:
    """Forecast the series in CSV, with quantiles (not in this version)."""
    source = f"with {model}" if model else "with a model fitted on the spot"
    targets = " and ".join(str(path) for path in (out, plot) if path) or "the terminal"
    _refuse("forecast", f"forecast {horizon} steps of {csv} {source}, with quantiles, to {targets}")


@main.command()
@click.argument("csv", type=click.Path(path_type=Path))
@click.option("--horizon", type=click.IntRange(min=1), required=True, help="How many steps ahead.")
def backtest(csv: Path, horizon: int) -> None:
    """Measure forecasts of CSV against its own past (not in this version)."""
    _refuse("backtest", f"forecast {csv} {horizon} steps ahead from several past dates, and compare with what came")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def info(as_json: bool) -> None:
    """Show versions, and which commands this version has."""
    facts = {
        "seqmamba": metadata.version("seqmamba"),
        "torch": metadata.version("torch"),
        "python": platform.python_version(),
        "commands": ["info"],
        "commands_to_come": ["fit", "forecast", "backtest"],
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
