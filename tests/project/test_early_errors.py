"""Wrong names and settings are told before torch is imported: here the import itself is forbidden."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

EACH = """
import contextlib, io, json, sys, traceback
from pathlib import Path

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        heavy = {"torch", "lightning", "numba", "matplotlib", "statsmodels", "statsforecast", "sklearn"}
        if name.partition(".")[0] in heavy:
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Forbidden())
from PROGRAM.cli import main

for line in sys.stdin:
    sys.argv = ["PROGRAM", *line.split()]
    before, status = sorted(Path().rglob("*")), 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            status = end.code
        except Exception:
            status = 1
            traceback.print_exc()
    changed = sorted(Path().rglob("*")) != before
    print(json.dumps([status, out.getvalue(), err.getvalue(), changed]))
"""
"""Runs each line of the standard input as a command of a program; a heavy import is a bug, which exits 1."""
FASTA = ">a\nACGTACGTACGTACGT\n"
CSV = "day,sales\n2024-01-01,1\n2024-01-02,2\n"
FILES = {"a.fa": FASTA,  "taken.tsv": "x", "bad.yaml": "data:\n  windw: 1\n", "s.csv": CSV, "t.csv": "sequence,label\n",
         "a.vcf": "##fileformat=VCFv4.2\n",
         "twice.yaml": "seed: 1\nseed: 2\n"}  # fmt: skip

WRONG = [
    ("genomamba pretrain --fasta no.fa --out run", "no.fa: there is no such file"),
    ("genomamba pretrain --out run", "--fasta"),
    ("genomamba pretrain --fasta a.fa --bed no.bed --out run", "no.bed: there is no such file"),
    ("genomamba pretrain --fasta a.fa --out full", "the run folder is not empty"),
    ("genomamba pretrain --fasta a.fa --out a.fa", "the run folder is a file"),
    ("genomamba pretrain --fasta a.fa --out run --set data.windw=1", "did you mean data.window?"),
    ("genomamba pretrain --fasta a.fa --out run --config bad.yaml", "bad.yaml, line 2: there is no setting data.windw"),
    ("genomamba pretrain --fasta a.fa --out run --config genomamba-2m", "there is no such preset"),
    ("genomamba pretrain --fasta a.fa --out run --max-time soon", "is not a length of time"),
    ("genomamba finetune table --table no.csv --out run", "no.csv: there is no such file"),
    ("genomamba finetune table --table t.csv --from nothing --out run", "nothing: there is no such model"),
    ("genomamba finetune table --table t.csv --out full", "the run folder is not empty"),
    ("genomamba finetune table --table t.csv --out run --set head.poling=mean", "did you mean head.pooling?"),
    ("genomamba finetune species --class human --out run", "NAME=FASTA"),
    ("genomamba finetune species --class human=no.fa --class ape=a.fa --out run", "no.fa: there is no such file"),
    ("genomamba finetune promoter --out run", "--positive"),
    ("genomamba classify --model nothing --fasta a.fa --out p.tsv", "nothing: there is no such model"),
    ("genomamba classify --model full --fasta no.fa --out p.tsv", "no.fa: there is no such file"),
    ("genomamba classify --model full --fasta a.fa --out p.xlsx", "unknown ending"),
    ("genomamba classify --model full --fasta a.fa --out taken.tsv", "exists already"),
    ("genomamba classify --model full --fasta a.fa --out nowhere/p.tsv", "no such folder"),
    ("genomamba classify --model full --fasta a.fa --out p.tsv --igv s.xml", "the output is a table"),
    ("genomamba classify --model full --fasta a.fa --out p.bed --report p.html", "reads the table again"),
    ("genomamba classify --model nothing --fasta a.fa --regions a:1-4 --out p.tsv", "there is no such model"),
    ("genomamba embed --model nothing --fasta a.fa --out v.npz", "nothing: there is no such model"),
    ("genomamba embed --model full --fasta a.fa --out v.csv", "unknown ending"),
    ("genomamba embed --model full --fasta a.fa --per position --out v.npz", ".parquet"),
    ("genomamba generate --model nothing --length 5 --out g.fa", "nothing: there is no such model"),
    ("genomamba generate --model full --prompt no.fa --length 5 --out g.fa", "no.fa: there is no such file"),
    ("genomamba generate --model full --length 5 --out g.txt", "unknown ending"),
    ("genomamba fetch hg83", "did you mean hg38?"),
    ("genomamba variants --model nothing --fasta a.fa --vcf a.vcf --out p.vcf", "nothing: there is no such model"),
    ("genomamba variants --model full --fasta no.fa --vcf a.vcf --out p.vcf", "no.fa: there is no such file"),
    ("genomamba variants --model full --fasta a.fa --vcf no.vcf --out p.vcf", "no.vcf: there is no such file"),
    ("genomamba variants --model full --fasta a.fa --vcf a.vcf --out p.bcf", "unknown ending"),
    ("genomamba variants --model full --fasta a.fa --vcf a.vcf --out taken.tsv", "exists already"),
    ("genomamba variants --model full --fasta a.fa --vcf a.vcf --out a.vcf", "the output is the input"),
    ("genomamba score --model nothing --fasta a.fa --out s.tsv", "nothing: there is no such model"),
    ("genomamba score --model full --fasta no.fa --out s.tsv", "no.fa: there is no such file"),
    ("genomamba score --model full --fasta a.fa --bed no.bed --out s.tsv", "no.bed: there is no such file"),
    ("genomamba score --model full --fasta a.fa --out s.bed", "unknown ending"),
    ("genomamba score --model full --fasta a.fa --out taken.tsv", "exists already"),
    ("genomamba score --model full --fasta a.fa --per region --out s.tsv", "name regions with --bed or --region"),
    ("genomamba score --model full --fasta - --region a:1-4 --out s.tsv", "save it as a file first"),
    ("genomamba evaluate --model nothing --fasta a.fa", "nothing: there is no such model"),
    ("genomamba evaluate --model full --table no.csv", "no.csv: there is no such file"),
    ("genomamba evaluate --model full --fasta a.fa --out a.fa", "a file of this name"),
    ("genomamba convert --model nothing --out other", "nothing: there is no such model"),
    ("genomamba convert --model full --out full", "this is neither a model nor a run folder"),
    ("genomamba audit --fasta no.fa", "no.fa: there is no such file"),
    ("genomamba audit --fasta a.fa --set data.windw=1", "did you mean data.window?"),
    ("genomamba info nothing", "there is nothing of that name"),
    ("genomamba reproduce promotrs --out run", "did you mean promoters?"),
    ("genomamba reproduce promoters --out run", "prom_300_tata/train.csv.gz: the benchmark GUE"),
    (
        "genomamba reproduce promoters --data full --out run",
        "5 of the files that the study promoters reads are missing",
    ),
    ("genomamba reproduce promoters --data full --out run --set seed=1", "did you mean seeds?"),
    ("genomamba reproduce promoters --data full --out run --set sets=[mine]", "there is no such set of promoters"),
    ("genomamba reproduce promoters --data full --out full", "the run folder is not empty"),
    ("tsmamba fit no.csv --out run", "no.csv: there is no such file"),
    ("tsmamba fit s.csv --out full", "the run folder is not empty"),
    ("tsmamba fit s.csv --out run --method prophet", "there is no such method"),
    ("tsmamba fit s.csv --out run --set train.epoch=1", "did you mean train.epochs?"),
    ("tsmamba fit s.csv --out run --config twice.yaml", "twice.yaml, line 2: the same key twice"),
    ("tsmamba forecast s.csv --out f.xls", "unknown ending"),
    ("tsmamba forecast s.csv --out taken.tsv", "exists already"),
    ("tsmamba forecast s.csv --plot f.gif", "unknown ending"),
    ("tsmamba forecast s.csv --model nothing", "nothing: there is no such model"),
    ("tsmamba forecast s.csv --future no.csv", "no.csv: there is no such file"),
    ("tsmamba forecast s.csv --level 150", "--level cannot be this"),
    ("tsmamba forecast s.csv --config smamb", "did you mean smamba?"),
    ("tsmamba backtest no.csv", "no.csv: there is no such file"),
    ("tsmamba backtest s.csv --method prophet", "there is no such method"),
    ("tsmamba backtest s.csv --out full", "holds other things"),
    ("tsmamba report s.csv --out page.pdf", "unknown ending"),
    ("tsmamba doctor no.csv", "no.csv: there is no such file"),
    ("tsmamba doctor s.csv --out nowhere/s.csv", "no such folder"),
    ("tsmamba stream --model nothing", "nothing: there is no such model"),
    ("tsmamba benchmark etth1 --data no.csv --horizon 96", "no.csv: there is no such file"),
    ("tsmamba benchmark etth1 --data s.csv --horizon 96 --set train.epoch=1", "did you mean train.epochs?"),
    ("tsmamba info nothing", "there is nothing of that name"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "full").mkdir()
    (folder / "full" / "letter.txt").write_text("mine")
    return folder


Told = dict[str, list[Any]]


def tell(lines: Sequence[str], place: Path) -> Told:
    """Exit status, both outputs, and whether the folder changed, of every command, each program's in one process."""
    told: Told = {}
    for program in ("genomamba", "tsmamba"):
        mine = [line for line in lines if line.startswith(f"{program} ")]
        asked = "".join(line.removeprefix(f"{program} ") + "\n" for line in mine)
        command = [sys.executable, "-c", EACH.replace("PROGRAM", program)]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, cwd=place, check=False)
        assert done.returncode == 0, done.stderr
        told |= zip(mine, map(json.loads, done.stdout.splitlines()), strict=True)
    return told


@pytest.fixture(scope="module")
def told(place: Path) -> Told:
    return tell([line for line, _ in WRONG], place)


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
def test_what_is_wrong_is_told_without_torch(line: str, words: str, told: Told) -> None:
    status, out, err, changed = told[line]
    assert (status, out, changed) == (2, "", False), err
    assert words in err
    assert err.startswith(f"{line.split()[0]}: error: ")


PREDICTING = """
import sys
from genomamba.commands import classify, embed, score, variants
print([name for name in ("torchmetrics", "sklearn", "lightning", "transformers") if name in sys.modules])
"""


def test_who_predicts_does_not_wait_for_what_training_needs() -> None:
    done = subprocess.run([sys.executable, "-c", PREDICTING], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_import_is_really_forbidden(place: Path) -> None:
    line = "tsmamba forecast s.csv --horizon 1"
    status, _, err, _ = tell([line], place)[line]
    assert status == 1
    assert "was imported" in err
