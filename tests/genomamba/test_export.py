"""Tables are read back, by the libraries people use, to what was written; a killed writer leaves nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pybigtools
import pytest

from genomamba.prediction.rows import Least, Predictions, decide, no_predictions
from genomamba.prediction.writers import FORMATS, output_format, table_writer
from mamba_data_prep.errors import UserError

CLASSES = ("human", "E. coli", "x,y")
NUMBERS = ("confidence", *(f"prob_{name}" for name in CLASSES), "margin", "typicality")
IDS = ["plain", 'quo"te', "semi;colon,comma", "tab-free|pipe", "ünïcode_δ", "plain", "NA", "=1+1", "'", "#x"]


def _rows(ids: list[str]) -> Predictions:
    p = np.random.default_rng(len(ids)).dirichlet(np.ones(3), len(ids))
    p[-1] = np.nan
    why = [""] * (len(ids) - 1) + ["no known base"]
    typicality = np.linspace(0, 1, len(ids))
    typicality[-1] = np.nan
    predicted, reason = decide(CLASSES, p, typicality, Least(0.5), why)
    start = np.arange(len(ids), dtype=np.int64) * 10
    n_frac, plus = np.linspace(0, 1, len(ids)), ["+"] * len(ids)
    return Predictions(CLASSES, ids, start, start + 64, plus, n_frac, predicted, p, reason, typicality)


def _write(path: Path) -> Predictions:
    rows = _rows(IDS)
    with table_writer(path, no_predictions(CLASSES)) as writer:
        writer.write(rows)
        writer.write(_rows(IDS[:3]))
    return rows


def _read(path: Path) -> pd.DataFrame:
    plain = {"keep_default_na": False, "na_values": {name: [""] for name in NUMBERS}}
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True, dtype={"seq_id": str})
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", **plain)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet", ".jsonl"])
def test_every_table_reads_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    rows, back = _write(path), _read(path)
    assert list(back.columns) == [
        "seq_id", "start", "end", "strand", "length", "n_frac", "predicted", "confidence",
        "prob_human", "prob_E. coli", "prob_x,y", "margin", "typicality", "reason",
    ]  # fmt: skip
    assert len(back) == len(IDS) + 3
    head = back.iloc[: len(IDS)]
    assert head["seq_id"].tolist() == IDS
    assert head["predicted"].tolist() == list(rows.predicted)
    assert head["reason"].tolist() == list(rows.reason)
    assert head["start"].tolist() == rows.start.tolist()
    assert (head["length"] == 64).all()
    written = head[[f"prob_{c}" for c in CLASSES]].to_numpy(float)
    np.testing.assert_allclose(written, rows.probabilities, atol=1e-6)
    np.testing.assert_allclose(head["confidence"].to_numpy(float), rows.confidence, atol=1e-6)


def test_json_lines_are_strict_json(tmp_path: Path) -> None:
    _write(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert found[len(IDS) - 1]["confidence"] is None


def test_bed_holds_what_browsers_ask_for(tmp_path: Path) -> None:
    rows = _write(tmp_path / "out.bed")
    fields = [line.split("\t") for line in (tmp_path / "out.bed").read_text().splitlines()]
    assert all(len(line) == 9 for line in fields)
    for line, start, confidence, name in zip(fields, rows.start, rows.confidence, rows.predicted, strict=False):
        assert (int(line[1]), int(line[2])) == (start, start + 64)
        assert line[3] == name.replace(" ", "_")
        assert int(line[4]) == (0 if np.isnan(confidence) else round(confidence * 1000))
        assert line[6:8] == line[1:3]
        assert all(0 <= int(part) <= 255 for part in line[8].split(","))
    assert fields[len(IDS) - 1][3] == "abstain"
    assert fields[len(IDS) - 1][8] == "128,128,128"


def test_an_empty_table_still_names_its_columns(tmp_path: Path) -> None:
    for suffix in (".tsv", ".csv", ".parquet"):
        path = tmp_path / f"none{suffix}"
        with table_writer(path, no_predictions(CLASSES)):
            pass
        assert list(_read(path).columns)[:2] == ["seq_id", "start"]
        assert len(_read(path)) == 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_error_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"

    def broken() -> None:
        with table_writer(path, no_predictions(CLASSES)) as writer:
            writer.write(_rows(IDS[:5]))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_nothing_under_the_name_and_is_swept_up(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom genomamba.prediction.rows import no_predictions\n"
        "from genomamba.prediction.writers import table_writer\n"
        "with table_writer(Path(sys.argv[1]), no_predictions(('a', 'b'))):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ, check=False, timeout=250)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    _write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["out.tsv"]


def test_outputs_of_an_unknown_format_are_refused() -> None:
    with pytest.raises(UserError, match="format is not known"):
        output_format(Path("out.xlsx"))
    with pytest.raises(UserError, match="format is not known"):
        output_format(Path("out"))


def test_quoting_follows_the_csv_module(tmp_path: Path) -> None:
    _write(tmp_path / "out.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["seq_id"] for row in rows[: len(IDS)]] == IDS


def test_unsure_rows_abstain_and_say_why() -> None:
    p = np.array([[0.4, 0.3, 0.3], [0.9, 0.05, 0.05], [np.nan] * 3])
    predicted, reason = decide(CLASSES, p, np.ones(3), Least(0.5), ["", "", "too short"])
    assert predicted == ["abstain", "human", "abstain"]
    assert reason == ["confidence below 0.5", "", "too short"]


def _windows(names: list[str], starts: list[int], value: list[float], width: int = 64) -> Predictions:
    start, p = np.array(starts, np.int64), np.array(value)
    rows = np.stack([p / 4, 0.75 - p / 4 * 3, p / 2], 1)
    some, plus = np.ones(len(names)), ["+"] * len(names)
    predicted, reason = decide(CLASSES, rows, some, Least(), [""] * len(names))
    return Predictions(CLASSES, names, start, start + width, plus, some - 1, predicted, rows, reason, some)


def test_a_bigwig_holds_each_windows_own_part_and_gaps_where_nothing_was_scored(tmp_path: Path) -> None:
    path = tmp_path / "out.bw"
    with table_writer(path, no_predictions(CLASSES), track="human") as writer:
        writer.write(_windows(["chr10", "chr10", "chr10"], [0, 40, 80], [0.5, np.nan, 1.0]))
        writer.write(_windows(["chr10", "chr2"], [144, 0], [0.25, 0.75]))
    with pybigtools.open(str(path)) as track:
        assert track.chroms() == {"chr10": 208, "chr2": 64}
        assert list(track.records("chr10")) == [(0, 40, 0.125), (80, 144, 0.25), (144, 208, 0.0625)]
        assert list(track.records("chr2")) == [(0, 64, 0.1875)]
    assert [file.name for file in tmp_path.iterdir()] == ["out.bw"]


@pytest.mark.parametrize(
    ("names", "starts", "value", "message"),
    [
        (["a", "b", "a"], [0, 0, 0], [0.5, 0.5, 0.5], "same id"),
        (["a", "a"], [0, 0], [0.5, 0.5], "same id"),
        (["a", "b"], [0, 0], [np.nan, np.nan], "cannot be empty"),
    ],
)
def test_what_a_bigwig_cannot_hold_is_refused(
    tmp_path: Path, names: list[str], starts: list[int], value: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message), table_writer(tmp_path / "out.bw", no_predictions(CLASSES)) as writer:
        writer.write(_windows(names, starts, value))
    assert not list(tmp_path.iterdir())


def test_a_bigwig_of_an_unknown_class_is_refused_before_the_work(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no such class"),
        table_writer(tmp_path / "out.bw", no_predictions(CLASSES), "mouse"),
    ):
        pytest.fail("the block was entered")
    assert not list(tmp_path.iterdir())
