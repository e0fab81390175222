"""Tables of predictions decided anew, and the formats beside them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from genomamba.cli import cli
from genomamba.commands.classify import run_classify
from genomamba.commands.rethreshold import run_rethreshold
from genomamba.prediction.kraken import write_kraken_report
from genomamba.prediction.read_table import read_predictions
from genomamba.prediction.rows import Predictions
from genomamba.prediction.summary_page import tallied
from mamba_data_prep.errors import UserError

RECORDS = {
    "a": "ACGTTGCATTAGCCATTAGC" * 3,
    "NA": "GGCATTACGGATTACAGGCC" * 2,
    "n": "N" * 30,
    "t;x=1": "TTTTTTTTTTTTTTTTTTTTAA",
}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "r.fa"
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in RECORDS.items()))
    return path


@pytest.mark.parametrize("ending", [".tsv", ".csv.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("least", [0.0, 0.7, 1.0])
def test_a_table_becomes_that_of_the_other_confidence(
    bundle: Path, fasta: Path, tmp_path: Path, ending: str, least: float
) -> None:
    run_classify(model=bundle, fasta=fasta, out=tmp_path / f"first{ending}", min_confidence=0.5)
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "expected.tsv", min_confidence=least)
    found = run_rethreshold(table=tmp_path / f"first{ending}", out=tmp_path / "found.tsv", min_confidence=least)
    assert (tmp_path / "found.tsv").read_text() == (tmp_path / "expected.tsv").read_text()
    assert found["rows"] == 4
    table = pd.read_csv(tmp_path / "found.tsv", sep="\t", keep_default_na=False)
    assert table["seq_id"].tolist() == list(RECORDS)
    assert found["counts"]["abstain"] == (table["predicted"] == "abstain").sum()


def test_gff3_says_what_the_table_says(bundle: Path, fasta: Path, tmp_path: Path) -> None:
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "p.tsv", per_window=True)
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "p.gff3.gz")
    table = pd.read_csv(tmp_path / "p.tsv", sep="\t", keep_default_na=False)
    lines = gzip.decompress((tmp_path / "p.gff3.gz").read_bytes()).decode().splitlines()
    assert lines[0] == "##gff-version 3"
    assert len(lines) == 1 + len(table)
    for line, row in zip(lines[1:], table.to_dict("records"), strict=True):
        record, source, kind, start, end, score, strand, phase, attributes = line.split("\t")
        assert (unquote(record), source, kind, phase) == (row["seq_id"], "genomamba", "region", ".")
        assert (int(start), int(end), strand) == (row["start"] + 1, row["end"], row["strand"])
        told = dict(part.split("=") for part in attributes.split(";"))
        assert unquote(told["Name"]) == row["predicted"]
        assert unquote(told.get("reason", "")) == row["reason"]
        if row["confidence"]:
            assert float(score) == pytest.approx(float(row["confidence"]), abs=1e-6)
            assert float(told["prob_x%2Cy"]) == pytest.approx(float(row["prob_x,y"]), abs=1e-6)
        else:
            assert score == "."


def test_a_kraken_report_adds_up(tmp_path: Path) -> None:
    write_kraken_report(tmp_path / "k", ("human", "E. coli", "yeast"), {"E. coli": 6, "human": 3, "abstain": 1})
    rows = [line.split("\t") for line in (tmp_path / "k").read_text().splitlines()]
    assert [row[1:] for row in rows] == [
        ["1", "1", "U", "0", "unclassified"],
        ["9", "0", "R", "1", "root"],
        ["6", "6", "S", "3", "  E. coli"],
        ["3", "3", "S", "2", "  human"],
    ]
    assert [float(row[0]) for row in rows] == [10, 90, 60, 30]


def test_classify_writes_a_kraken_report(bundle: Path, fasta: Path, tmp_path: Path) -> None:
    asked = ["classify", "--model", str(bundle), "--fasta", str(fasta), "--out", str(tmp_path / "p.tsv"), "--json"]
    done = CliRunner().invoke(cli, [*asked, "--kraken-report", str(tmp_path / "p.kreport")])
    assert done.exit_code == 0, done.output
    counts = json.loads(done.stdout)["counts"]
    report = [line.split("\t") for line in (tmp_path / "p.kreport").read_text().splitlines()]
    assert {row[5].strip(): int(row[2]) for row in report if row[3] == "S"} == {
        name: n for name, n in counts.items() if name != "abstain"
    }
    again = CliRunner().invoke(
        cli, [*asked[:-2], str(tmp_path / "q.tsv"), "--kraken-report", str(tmp_path / "p.kreport")]
    )
    assert again.exit_code == 2
    assert "--kraken-report" in again.output


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.bed", "a\t0\t5\n", "can be read again"),
        ("t.tsv", "seq_id\tstart\na\t1\n", "no column end"),
        ("t.tsv", "", "cannot be read"),
        ("t.csv.gz", "no gzip", "cannot be read"),
        ("t.jsonl", '{"seq_id": \n', "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        list(read_predictions(tmp_path / name))


def test_the_command_says_how_many_rows_changed(bundle: Path, fasta: Path, tmp_path: Path) -> None:
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "p.tsv")
    asked = ["rethreshold", str(tmp_path / "p.tsv"), "--min-confidence", "1", "--out", str(tmp_path / "q.bed")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    assert "4 rows, 3 of them changed" in done.output
    assert (tmp_path / "q.bed").read_text().count("abstain") == 4
    assert (tmp_path / "q.bed.json").exists()
    assert CliRunner().invoke(cli, asked).exit_code == 2


def test_the_page_of_a_table_adds_up(bundle: Path, fasta: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "p.tsv", tmp_path / "p.html"
    run_classify(model=bundle, fasta=fasta, out=out, report=page)
    table = pd.read_csv(out, sep="\t", keep_default_na=False)
    text = page.read_text()
    for name, count in table["predicted"].value_counts().items():
        of = table[table["predicted"] == name]
        assert f"<td>{name}</td><td>{count}</td><td>{count / 4:.1%}</td><td>{of['length'].sum()}</td>" in text
    assert "<td>no known base</td><td>1</td>" in text
    assert "<td>16 to 31</td><td>2</td>" in text  # of 22 and 30 bases
    assert "data:image/png;base64," in text
    run_rethreshold(table=out, out=tmp_path / "sure.csv", min_confidence=1.0, report=tmp_path / "sure.html")
    assert "<td>abstain</td><td>4</td>" in (tmp_path / "sure.html").read_text()


def test_tallies_count_every_row_once() -> None:
    rows = Predictions(
        ("a", "b"), ["r"] * 5, np.zeros(5, int), np.array([1, 2, 3, 4, 8]), ["+"] * 5, np.zeros(5),
        ["a", "b", "abstain", "b", "b"],
        np.array([[0.51, 0.49], [0.0, 1.0], [np.nan, np.nan], [0.2, 0.8], [0.3, 0.7]]),
        ["", "", "no bases", "", ""], np.ones(5),
    )  # fmt: skip
    counted = tallied(iter([rows, rows]))
    assert counted.counts == {"a": 2, "b": 6, "abstain": 2}
    assert counted.bases == {"a": 2, "b": 28, "abstain": 6}
    assert counted.confidences.sum(axis=1).tolist() == [2, 6]
    assert counted.confidences[0, 10] == counted.confidences[1, 19] == counted.confidences[1, 14] == 2
    assert counted.lengths[:4].tolist() == [[2, 0, 0], [0, 2, 2], [0, 2, 0], [0, 2, 0]]


@pytest.mark.parametrize("out", ["p.bed", "p.bw", "-"])
def test_a_page_needs_a_table_that_is_read_again(bundle: Path, fasta: Path, tmp_path: Path, out: str) -> None:
    target = Path(out) if out == "-" else tmp_path / out
    with pytest.raises(UserError, match="reads the table again"):
        run_classify(model=bundle, fasta=fasta, out=target, report=tmp_path / "p.html")
    assert list(tmp_path.iterdir()) == []
