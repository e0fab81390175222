"""The command line as a user meets it: help, exit codes, messages."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tsmamba.cli import cli

COMMANDS = ["fit", "forecast", "backtest", "report", "info"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert f"  tsmamba {command} " in result.stdout


def test_a_horizon_below_one_is_refused() -> None:
    result = CliRunner().invoke(cli, ["forecast", "sales.csv", "--horizon", "0"])
    assert result.exit_code == 2
    assert "x>=1" in result.stderr


def test_info_without_a_name_tells_the_versions() -> None:
    facts = json.loads(CliRunner().invoke(cli, ["info", "--json"]).stdout)
    assert {"seqmamba", "torch", "python"} <= facts["versions"].keys()
