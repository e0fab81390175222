"""The placeholder says what it will do, does nothing, and leaves with exit code 2."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tsmamba.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "sales.csv", "--horizon", "24", "--out", "runs/sales"],
        ["forecast", "sales.csv", "--horizon", "24", "--out", "next.csv", "--plot", "next.png"],
        ["backtest", "sales.csv", "--horizon", "24"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_missing_command_says_what_it_will_do(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert f"tsmamba {arguments[0]} is not in seqmamba" in result.stderr
    assert "sales.csv" in result.stderr
    assert "24 steps" in result.stderr
    assert result.stdout == ""


def test_a_horizon_below_one_is_refused() -> None:
    result = CliRunner().invoke(main, ["forecast", "sales.csv", "--horizon", "0"])
    assert result.exit_code == 2
    assert "x>=1" in result.stderr


def test_info_lists_what_is_here_and_what_is_not() -> None:
    facts = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)
    assert facts["commands"] == ["info"]
    assert "forecast" in facts["commands_to_come"]
    assert "commands to come: fit, forecast, backtest" in CliRunner().invoke(main, ["info"]).stdout
