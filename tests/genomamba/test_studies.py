"""Studies: fits that are kept, intervals that hold what they say, and each study run small on what ships."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genomamba.commands.reproduce import run_reproduce
from genomamba.demo.steps import DATA
from genomamba.studies import STUDIES, lines, study_named
from genomamba.studies.intervals import of_share, over_groups, over_seeds
from genomamba.studies.promoters.start_sites import write_start_sites
from genomamba.studies.study import Place, Study
from mamba_configs.settings import Section
from mamba_data_prep.errors import UserError


@pytest.mark.parametrize("name", STUDIES)
def test_a_listed_study_is_there_with_defaults_that_say_what_they_accept(name: str) -> None:
    one = study_named(name)
    assert isinstance(one, Study)
    assert f"  {name}" in lines()
    assert one.files(one.options())
    assert issubclass(one.options, Section)
    assert all(field.description for field in one.options.model_fields.values())


def test_a_finished_fit_is_kept_and_one_that_is_asked_otherwise_is_made_anew(tmp_path: Path) -> None:
    made: list[str] = []

    def make(folder: Path) -> dict[str, Any]:
        made.append(folder.name)
        return {"bits": np.float64(1.5), "number": len(made)}

    place = Place(tmp_path, tmp_path, lambda _: None, {"files": {"a.fa": "12"}})
    first = place.once("one", {"seeds": 3}, make)
    assert first == {"bits": 1.5, "number": 1}
    assert place.once("one", {"seeds": 3}, make) == first
    assert place.once("one", {"seeds": 4}, make)["number"] == 2
    assert Place(tmp_path, tmp_path, print, {"files": {"a.fa": "13"}}).once("one", {"seeds": 4}, make)["number"] == 3
    assert made == ["one"] * 3


def test_a_fit_that_fails_leaves_no_result(tmp_path: Path) -> None:
    def fail(_: Path) -> dict[str, Any]:
        raise KeyboardInterrupt

    place = Place(tmp_path, tmp_path, lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        place.once("one", {}, fail)
    assert place.once("one", {}, lambda _: {"x": 1}) == {"x": 1}


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(3.0, 1.0, (400, 5))
    inside = [low <= 3.0 <= high for _, low, high in map(over_seeds, samples.tolist())]
    assert 0.92 < np.mean(inside) < 0.98
    right = rng.binomial(200, 0.25, 400)
    assert 0.92 < np.mean([low <= 0.25 <= high for low, high in (of_share(int(n), 200) for n in right)]) < 0.98
    groups = np.repeat(np.arange(50), 8)
    values = [(rng.normal(0, 1, 50)[groups] + rng.normal(0, 1, 400)) for _ in range(150)]
    inside = [low <= 0 <= high for low, high in (over_groups(one, groups) for one in values)]
    assert 0.88 < np.mean(inside) < 0.99
    assert over_seeds([0.5])[0] == 0.5
    assert np.isnan(over_seeds([0.5])[1])


def test_start_sites_get_the_strand_of_the_gene_that_begins_there(tmp_path: Path) -> None:
    (tmp_path / "genes.bed").write_text("chr1\t100\t200\nchr1\t199\t400\nchr2\t10\t50\n")
    (tmp_path / "sites.bed").write_text("chr2\t49\t50\nchr1\t100\t101\nchr1\t199\t200\nchr1\t399\t400\nchr1\t7\t8\n")
    assert write_start_sites(tmp_path / "sites.bed", tmp_path / "genes.bed", tmp_path / "out.bed") == 3
    found = [line.split("\t") for line in (tmp_path / "out.bed").read_text().splitlines()]
    assert [(row[0], row[1], row[5]) for row in found] == [
        ("chr1", "100", "+"),
        ("chr1", "399", "-"),
        ("chr2", "49", "-"),
    ]
    with pytest.raises(UserError, match="no start site is an end of a gene"):
        write_start_sites(tmp_path / "sites.bed", tmp_path / "sites.bed", tmp_path / "none.bed")


def demo_windows(name: str, n: int, window: int) -> list[str]:
    """The first windows of a genome that ships."""
    with gzip.open(DATA / f"{name}.fa.gz", "rt") as file:
        text = "".join(line.strip() for line in file if not line.startswith(">")).upper()
    return [text[start : start + window] for start in range(0, n * window, window)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tables: windows of two genomes, as labelled sequences."""
    folder = tmp_path_factory.mktemp("own") / "human-or-not"
    folder.mkdir()
    rows = [(one, label) for label, name in enumerate(("ecoli", "human")) for one in demo_windows(name, 60, 48)]
    for split, which in (("train", range(0, 80)), ("dev", range(80, 100)), ("test", range(100, 120))):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("sequence", "label"))
            writer.writerows(rows[at * 53 % 120] for at in which)
    return folder


def test_promoters_on_tables_of_ones_own_and_gone_on_with(tables: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"name": "promoters", "out": tmp_path / "run", "data": tmp_path}
    settings = [f"sets=[{tables}]", "steps=4"]
    found = run_reproduce(**asked, overrides=settings, flags={"seeds": 2})
    rows = found["tables"]["Scores on the test split"]
    assert [row["method"] for row in rows][:2] == ["this classifier, from scratch", "its network alone"]
    assert {"small CNN", "one-hot logistic regression", "head on the frozen model"} <= {row["method"] for row in rows}
    assert {row["set"] for row in rows} == {"human-or-not"}
    assert rows[0]["low"] <= rows[0]["macro_f1"] <= rows[0]["high"]
    assert found["tables"]["What the test split itself allows"][0]["test sequences"] == 20
    out = tmp_path / "run"
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "| human-or-not | this classifier, from scratch | 2 |" in (out / "README.md").read_text()
    assert len((out / "table.tsv").read_text().splitlines()) == len(rows) + 1
    fits = {path: path.stat().st_mtime_ns for path in out.glob("fits/*/result.json")}
    assert len(fits) == 4
    again = run_reproduce(name="promoters", out=out, resume=True)
    assert again["tables"] == json.loads(json.dumps(found["tables"]))
    assert {path: path.stat().st_mtime_ns for path in fits} == fits


def test_another_study_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("study: length\nsettings: {}\n")
    with pytest.raises(UserError, match="this folder is of another study"):
        run_reproduce(name="promoters", out=tmp_path, resume=True)
