"""Labelled intervals, laid out as in GenomicBenchmarks: what is read, how it is split, and what is refused."""

from __future__ import annotations

import gzip
import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.classifier.tasks.intervals import PlacedRows, class_genomes, interval_data
from genomamba.commands.evaluate import run_evaluate
from genomamba.commands.finetune import run_finetune
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import reverse_complement

SMALL = (
    "model.d_model=8", "model.n_layers=1", "model.d_state=4", "stem.taps=5", "stem.stride=3", "train.batch_size=32",
    "train.epochs=1",
)  # fmt: skip
Row = tuple[str, int, int, str]
Write = Callable[..., Path]


def write_set(
    folder: Path, rows: Mapping[tuple[str, str], Sequence[Row]], metadata: str = "", plain: bool = False
) -> Path:
    """A set; rows are given by split and class."""
    for (split, label), own in rows.items():
        path = folder / split / f"{label}.csv{'' if plain else '.gz'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{number},{','.join(map(str, row))}" for number, row in enumerate(own)]
        text = "\n".join(["id,region,start,end,strand", *lines]) + "\n"
        path.write_bytes(text.encode() if plain else gzip.compress(text.encode()))
    if metadata:
        (folder / "metadata.yaml").write_text(metadata)
    return folder


@pytest.fixture
def genome(write_fasta: Write, make_bases: Callable[[int, int], str]) -> tuple[Path, dict[str, str]]:
    """A genome of six chromosomes that are called as Ensembl calls them."""
    records = {str(number): make_bases(4000, number) for number in range(1, 7)}
    return write_fasta(records, "genome.fa"), records


def scattered(n: int, seed: int, chromosomes: int = 6, length: int = 40) -> list[Row]:
    rng = np.random.default_rng(seed)
    starts = rng.choice(4000 // length, n, replace=False) * length
    return [
        (f"chr{rng.integers(1, chromosomes + 1)}", int(s), int(s) + length, "+-"[i % 2]) for i, s in enumerate(starts)
    ]


def of(folder: Path, fasta: Path, **settings: Any) -> LabelledData:
    opened = IntervalFolder.open(folder)
    return interval_data(opened, class_genomes(opened, fasta, ()), FinetuneData.model_validate(settings), 0)


def test_sequences_are_those_of_the_genome_on_their_strand_and_splits_those_of_the_folder(
    tmp_path: Path, genome: tuple[Path, dict[str, str]]
) -> None:
    fasta, records = genome
    rows = {
        (split, label): scattered(40, seed)
        for seed, (split, label) in enumerate(itertools.product(("train", "test"), ("b", "a")))
    }
    data = of(write_set(tmp_path / "set", rows), fasta)
    assert data.classes == ("a", "b")
    assert data.stranded
    assert data.description["split"] == "as given; valid taken from train by hash, overlapping intervals together"

    def expected(split: str, label: str) -> list[bytes]:
        found = []
        for region, start, end, strand in rows[split, label]:
            bases = np.frombuffer(records[region.removeprefix("chr")][start:end].encode(), np.uint8)
            found.append((reverse_complement(bases) if strand == "-" else bases).tobytes())
        return found

    for number, label in enumerate(data.classes):
        own = {
            name: [examples.fetch(i).tobytes() for i in np.flatnonzero(examples.labels == number).tolist()]
            for name, examples in data.splits().items()
        }
        assert own["test"] == expected("test", label)
        assert 3 <= len(own["valid"]) <= 5
        assert set(own["train"]) | set(own["valid"]) <= set(expected("train", label))
        assert not set(own["train"]) & set(own["valid"])


def test_what_test_shares_with_training_is_counted_and_said(
    tmp_path: Path, genome: tuple[Path, dict[str, str]]
) -> None:
    apart = [("1", 100 * i, 100 * i + 40, "+") for i in range(30)]
    rows = {
        ("train", "a"): apart[:15], ("train", "b"): apart[15:],
        ("test", "a"): [("chr1", 139, 179, "+"), ("1", 220, 260, "+"), ("2", 0, 40, "+"), ("1", 1519, 1559, "-")],
        ("test", "b"): [("1", 3980, 4000, "+"), ("1", 240, 280, "+"), ("3", 100, 140, "+")],
    }  # fmt: skip
    data = of(write_set(tmp_path / "set", rows), genome[0])
    # by one base; by half; by 21 of 40 of another class. 240-280 touches 200-240 and shares nothing.
    assert data.description["shared_with_training"] == {
        "of": 7, "overlapping": 3, "by_half_or_more": 2, "another_class": 1
    }  # fmt: skip
    assert data.warnings[-1].startswith(
        "3 of 7 test intervals overlap one of train or valid in the genome, 2 by half of their bases or more, 1 one of"
    )
    assert len(data.test) == 7


def test_intervals_that_overlap_are_validated_on_together(tmp_path: Path, genome: tuple[Path, dict[str, str]]) -> None:
    places = [(str(1 + i % 3), 60 * (i // 3), 60 * (i // 3) + 45 + 30 * (i % 4 == 0), "+") for i in range(120)]
    rows = {
        ("train", "a"): places[::2],
        ("train", "b"): places[1::2],
        ("test", "a"): scattered(5, 1),
        ("test", "b"): scattered(5, 2),
    }
    folder = IntervalFolder.open(write_set(tmp_path / "set", rows))
    placed = PlacedRows.read(folder, dict.fromkeys(folder.classes, genome[0]))
    data = of(tmp_path / "set", genome[0])
    table = placed.table
    assert len(data.valid) > 3
    for row in data.valid.rows:
        own = table.record[data.train.rows] == table.record[row]
        start, end = table.start[data.train.rows][own], table.end[data.train.rows][own]
        assert not ((start < table.end[row]) & (table.start[row] < end)).any()


@pytest.mark.parametrize("named", [{}, {"test_chromosomes": ["chr2", "5"], "valid_chromosomes": ["chr3"]}])
def test_a_split_by_chromosome_holds_whole_chromosomes_out(
    named: dict[str, Any], tmp_path: Path, genome: tuple[Path, dict[str, str]]
) -> None:
    rows = {
        (split, label): scattered(60, seed)
        for seed, (split, label) in enumerate(itertools.product(("train", "test"), ("a", "b")))
    }
    data = of(write_set(tmp_path / "set", rows), genome[0], split="chromosomes", **named)
    source: Any = data.train.source
    held = {
        name: {source.genomes[0].records[n].name for n in source.record[part.rows]}
        for name, part in data.splits().items()
    }
    assert not held["train"] & held["test"] | held["train"] & held["valid"] | held["test"] & held["valid"]
    assert set.union(*held.values()) == set("123456")
    if named:
        assert (held["test"], held["valid"]) == ({"2", "5"}, {"3"})
        assert data.description["split"] == "by chromosome: test 2, 5; valid 3; train all others"
    assert data.description["shared_with_training"] == {
        "of": len(data.test), "overlapping": 0, "by_half_or_more": 0, "another_class": 0
    }  # fmt: skip


def test_chromosomes_are_dealt_by_their_intervals(tmp_path: Path, genome: tuple[Path, dict[str, str]]) -> None:
    many = [("1", 40 * i, 40 * i + 40, "+") for i in range(90)]
    few = [(str(c), 40 * i, 40 * i + 40, "+") for c in (2, 3) for i in range(10)]
    rows = {("train", "a"): many[::2] + few[::2], ("train", "b"): many[1::2] + few[1::2]}
    data = of(write_set(tmp_path / "set", rows), genome[0], split="chromosomes")
    assert [sum(row.values()) for row in data.counts().values()] == [90, 10, 10]
    with pytest.raises(UserError, match="too few chromosomes"):
        of(tmp_path / "set", genome[0], split="chromosomes", test_chromosomes=["1", "2"], valid_chromosomes=["3"])
    with pytest.raises(UserError, match="no genome has the chromosome") as caught:
        of(tmp_path / "set", genome[0], split="chromosomes", test_chromosomes=["chr9"])
    assert caught.value.found == "chr9"
    with pytest.raises(ValueError, match=r"data\.split=chromosomes"):
        FinetuneData(test_chromosomes=("1",))


def test_long_intervals_are_cut_to_the_middle_as_they_are_read(
    tmp_path: Path, genome: tuple[Path, dict[str, str]]
) -> None:
    rows: dict[tuple[str, str], list[Row]] = {
        ("train", label): [("1", 50 * i, 50 * i + 31 + i % 3, "+-"[i % 2]) for i in range(first, 60, 2)]
        for first, label in enumerate("ab")
    }
    folder = IntervalFolder.open(write_set(tmp_path / "set", rows))
    placed = PlacedRows.read(folder, dict.fromkeys(folder.classes, genome[0]))
    for window in (20, 32, 40):
        cut = placed.cut(window)
        for i, row in enumerate(placed.rows):
            first = max(len(row.bases) - window, 0) // 2
            assert cut.fetch(i).tobytes() == row.bases[first : first + window].tobytes()


def test_a_strand_that_some_intervals_do_not_name_means_nothing(
    tmp_path: Path, genome: tuple[Path, dict[str, str]]
) -> None:
    rows = {("train", "a"): [("1", 50 * i, 50 * i + 40, "") for i in range(30)], ("train", "b"): scattered(30, 3)}
    data = of(write_set(tmp_path / "set", rows, plain=True), genome[0])
    assert not data.stranded


def test_classes_of_several_genomes_have_each_its_own(
    tmp_path: Path, genome: tuple[Path, dict[str, str]], write_fasta: Write, make_bases: Callable[[int, int], str]
) -> None:
    """Names of transcripts stand without their version, as in coding_vs_intergenomic."""
    transcripts = {f"ENST0000{i:06}.{1 + i % 3}": make_bases(60, 500 + i) for i in range(40)}
    cdna = write_fasta(transcripts, "cdna.fa")
    metadata = "classes:\n  coding: {url: 'http://x/cdna.fa.gz', type: fa.gz}\n  other: {url: 'http://x/dna.fa.gz'}\n"
    coding = [(name.partition(".")[0], 5, 55, "+") for name in transcripts]
    rows = {
        ("train", "coding"): coding[:30],
        ("test", "coding"): coding[30:],
        ("train", "other"): scattered(30, 1),
        ("test", "other"): scattered(10, 2),
    }
    folder = IntervalFolder.open(write_set(tmp_path / "set", rows, metadata))
    with pytest.raises(UserError, match="lie in different genomes") as caught:
        class_genomes(folder, genome[0], ())
    assert "--class other=dna.fa.gz" in str(caught.value.fix)
    with pytest.raises(UserError, match="a class has no genome"):
        class_genomes(folder, None, [f"other={genome[0]}"])
    with pytest.raises(UserError, match="has no such class"):
        class_genomes(folder, genome[0], [f"mine={genome[0]}"])
    files = class_genomes(folder, genome[0], [f"coding={cdna}"])
    data = interval_data(folder, files, FinetuneData(), 0)
    (first, *_) = (data.test.fetch(i) for i in np.flatnonzero(data.test.labels == 0).tolist())
    assert first.tobytes().decode() == transcripts[f"{coding[30][0]}.1"][5:55]
    assert len(data.genomes) == 2
    apart = interval_data(folder, files, FinetuneData(split="chromosomes"), 0)
    assert all(min(row.values()) > 0 for row in apart.counts().values())


BROKEN: dict[str, tuple[str, int, str]] = {
    "beyond the end": ("0,chr1,3990,4001,+", 2, "beyond the record's end"),
    "no such chromosome": ("0,chr9,0,10,+", 2, "no record of this name"),
    "end before start": ("0,chr1,30,30,+", 2, "end is not beyond the start"),
    "negative": ("0,chr1,-3,30,+", 2, "the start is negative"),
    "no number": ("0,chr1,3.0,30,+", 2, "the start is no whole number"),
    "strand": ("0,chr1,3,30,forward", 2, "this is no strand"),
    "no name": ("0,,3,30,+", 2, "the chromosome's name is empty"),
    "fields": ("0,chr1,3,30", 2, "another number of fields"),
    "later": ("0,chr1,3,30,+\n\n0,chr1,0,9999,+", 4, "beyond the record's end"),
    "empty": ("", 0, "holds no interval"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_with_its_file_and_line(
    name: str, tmp_path: Path, genome: tuple[Path, dict[str, str]]
) -> None:
    text, line, problem = BROKEN[name]
    folder = write_set(
        tmp_path / "set",
        {("train", "a"): scattered(9, 1), ("train", "b"): scattered(9, 2), ("test", "a"): scattered(3, 3)},
    )
    path = folder / "test" / "b.csv.gz"
    path.write_bytes(gzip.compress(f"id,region,start,end,strand\n{text}\n".encode()))
    with pytest.raises(UserError, match=problem) as caught:
        of(folder, genome[0])
    assert str(caught.value.path) == str(path)
    assert (caught.value.line or 0) == line


def test_folders_of_another_layout_are_refused(tmp_path: Path) -> None:
    rows = {("train", "a"): scattered(9, 1), ("train", "b"): scattered(9, 2)}
    several = tmp_path / "sets"
    one = write_set(several / "one", rows, "classes: {a: {url: 'x/y.fa'}, c: {url: 'x/y.fa'}}\n")
    with pytest.raises(UserError, match="other classes") as caught:
        IntervalFolder.open(one)
    assert (caught.value.path, caught.value.line) == (one / "metadata.yaml", 1)
    (one / "metadata.yaml").unlink()
    with pytest.raises(UserError, match="holds several sets") as caught:
        IntervalFolder.open(several)
    assert caught.value.fix == f"--intervals {one}"
    for place, problem in (
        (tmp_path / "none", "no such folder"),
        (one / "train", "no file of a class"),
        (one / "train" / "a.csv.gz", "a file"),
    ):
        with pytest.raises(UserError, match=problem):
            IntervalFolder.open(place)
    write_set(one, {("train", "a"): rows["train", "a"]}, plain=True)
    with pytest.raises(UserError, match="is there twice"):
        IntervalFolder.open(one)
    (one / "train" / "a.csv").unlink()
    write_set(one, {("test", "c"): scattered(3, 3)})
    with pytest.raises(UserError, match="in test and not in train"):
        IntervalFolder.open(one)
    (one / "test" / "c.csv.gz").write_bytes(b"")
    (one / "train" / "b.csv.gz").write_bytes(gzip.compress(b"chr1,0,10,+\n"))
    (one / "test" / "c.csv.gz").unlink()
    with pytest.raises(UserError, match="lacks the column region"):
        list(IntervalFolder.open(one).intervals())


def test_finetune_and_evaluate_agree_on_the_splits(tmp_path: Path, genome: tuple[Path, dict[str, str]]) -> None:
    """Also of a copy elsewhere; of a folder that is new to the model, its own splits are meant."""
    fasta, _ = genome
    rows = {
        (split, label): scattered(n, seed)
        for seed, ((split, n), label) in enumerate(itertools.product((("train", 60), ("test", 20)), "ab"))
    }
    folder = write_set(tmp_path / "set", rows)
    run = tmp_path / "run"
    flags = {"data.split": "chromosomes"}
    made = run_finetune(task="intervals", out=run, overrides=SMALL, flags=flags, intervals=folder, fasta=fasta)
    copy = shutil.copytree(folder, tmp_path / "copy")
    for split, counts in made["data"]["counts"].items():
        result = run_evaluate(model=run, intervals=copy, fasta=fasta, split=split)
        assert [sum(row) for row in result["test"]["confusion"]] == list(counts.values())
        assert (result["seen_in_training"], result["split"]) == (True, split)
        assert bool(result["read_in_training"]["read_windows"]) == (split == "train")
    assert run_evaluate(model=run, intervals=folder, fasta=fasta)["split"] == "test"
    assert run_evaluate(model=run, intervals=folder, fasta=fasta, split="all")["test"]["n"] == 160
    new = write_set(
        tmp_path / "new",
        {("train", "a"): scattered(9, 7), ("test", "b"): scattered(5, 8), ("train", "b"): scattered(4, 9)},
    )
    assert run_evaluate(model=run, intervals=new, fasta=fasta)["test"]["n"] == 5
    assert run_evaluate(model=run, intervals=new, fasta=fasta, split="train")["test"]["n"] == 13
    with pytest.raises(UserError, match="has no valid split"):
        run_evaluate(model=run, intervals=new, fasta=fasta, split="valid")
    with pytest.raises(UserError, match="give one thing to score on"):
        run_evaluate(model=run, intervals=new)
    (new / "train" / "b.csv.gz").rename(new / "train" / "c.csv.gz")
    (new / "test" / "b.csv.gz").unlink()
    with pytest.raises(UserError, match="none of the model's classes"):
        run_evaluate(model=run, intervals=new, fasta=fasta, split="all")
