"""The command line: quick without work, clear when refused, and the promised exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from genomamba import cli

PROGRAM = [sys.executable, "-m", "genomamba"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


COMMANDS = ["pretrain", "finetune", "finetune species", "finetune promoter", "finetune table", "classify"]


@pytest.mark.parametrize("command", ["", *COMMANDS, "evaluate", "audit", "info"])
def test_every_command_explains_itself(command: str) -> None:
    code, text = run(*command.split(), "--help")
    assert code == 0
    assert "Usage:" in text


@pytest.mark.parametrize("command", ["", "pretrain", "finetune species", "finetune table", "classify", "audit", "info"])
def test_help_has_examples(command: str) -> None:
    assert f"genomamba {command}".strip() in run(*command.split(), "--help")[1].partition("Example")[2]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["pretrain", "--help"], ["pretrain", "--out"], ["nonsense"], ["classify"]]
)
def test_help_and_argument_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, click\nfrom genomamba.cli import cli\n"
        f"try: cli({arguments!r}, prog_name='genomamba')\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'lightning', 'numba', 'yaml', 'pydantic', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("HEAVY []")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain"], ["--out"]),
        (["pretrain", "--out", "x"], ["--fasta"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--max-steps", "0"], ["--max-steps"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--max-steps", "many"], ["many"]),
        (["finetune", "promoter", "--out", "x"], ["--positive and --negative, or --fasta and --tss"]),
        (["finetune", "species", "--out", "x"], ["--class"]),
        (["classify", "--model", "m"], ["--fasta"]),
        (["train"], ["no such command", "train", "did you mean pretrain?"]),
        (["classify", "--modell", "m"], ["no such option", "--modell", "did you mean --model?"]),
        (
            ["classify", "--model", "m", "--fasta", "a", "--fasta", "b", "--out", "x.tsv"],
            ["--fasta is given 2 times", "a, b", "cat A B > BOTH"],
        ),
        (
            ["classify", "--model", "m", "--fasta", "a", "--out", "x.tsv", "--min-confidence", "150"],
            ["150", "a number from 0 and up to 1"],
        ),
        (
            ["classify", "--model", "m", "--fasta", "a", "--out", "x.tsv", "--aggregate", "medan"],
            ["medan", "mean, log-mean"],
        ),
        (["evaluate", "--model", "m", "--fasta", "a", "--table", "b"], ["one thing to score on"]),
        (["info", "no-such-thing"], ["nothing of that name", "no-such-thing", "genomamba-tiny"]),
        (["pretrain", "--fasta", "no.fa", "--out", "x"], ["no.fa"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--set", "data.windw=1"], ["did you mean data.window?"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--config", "genomamba-2m"], ["no such preset"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--max-time", "soon"], ["max_time", "20m"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--precision", "fp8"], ["fp8", "bf16-mixed"]),
        (["pretrain", "--fasta", "a.fa", "--out", "x", "--devices", "some"], ["devices", "some"]),
        (["audit", "--fasta", "no.fa"], ["no.fa"]),
    ],
)
def test_what_the_user_got_wrong_exits_2(arguments: list[str], words: list[str], monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run(*arguments)
    assert code == 2
    assert [word for word in words if word not in text] == []
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        ("UserError('bad base', path='x.fa', line=3)", 2, "error: x.fa, line 3: bad base"),
        ("Interrupted('at step 7')", 3, "stopped: at step 7"),
        ("KeyboardInterrupt()", 3, "stopped: by the keyboard"),
        ("PermissionError(13, 'Permission denied', '/etc/x')", 2, "/etc/x: Permission denied"),
        ("OSError(28, 'No space left on device')", 2, "No space left on device"),
        ("BrokenPipeError(32, 'Broken pipe')", 0, ""),
    ],
)
def test_exit_codes(error: str, code: int, words: str) -> None:
    done = run_with_failing_info(error)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert words in done.stderr


def run_with_failing_info(error: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys\nfrom mamba_data_prep.errors import *\nfrom genomamba import cli\n"
        "from genomamba.commands import info\n"
        f"def fail(what): raise {error}\n"
        "info.run_info = fail\nsys.argv = ['genomamba', 'info', 'x']\ncli.main()\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_a_bug_shows_its_traceback_and_exits_1() -> None:
    done = run_with_failing_info("ZeroDivisionError('ours')")
    assert done.returncode == 1
    assert "ZeroDivisionError: ours" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{' '.join(PROGRAM)} info genomamba-tiny | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("#")


def test_info_prints_a_preset_that_can_be_saved(tmp_path: Path) -> None:
    code, text = run("info", "genomamba-tiny")
    assert code == 0
    (tmp_path / "mine.yaml").write_text(text)
    from genomamba.config import load_config

    assert load_config(tmp_path / "mine.yaml") == load_config("genomamba-tiny")


def test_info_describes_a_genome(tiny_genome: Path) -> None:
    found = json.loads(run("info", str(tiny_genome), "--json")[1])
    assert (found["records"], found["bases"], found["unknown_bases"], found["longest"]) == (3, 12_000, 200, 6000)
    assert "3 record(s), 12,000 bases" in run("info", str(tiny_genome))[1]


def test_audit_proves_the_split(tiny_genome: Path) -> None:
    code, text = run("audit", "--fasta", str(tiny_genome), "--set", "data.window=64")
    assert code == 0
    assert "No base is shared by two splits." in text
    found = json.loads(run("audit", "--fasta", str(tiny_genome), "--set", "data.window=64", "--json")[1])
    assert found["audit"]["ok"] is True
    assert found["split"]["window"] == 64
