"""Regions are read by pyfaidx from an index that belongs to the file as it is."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval
from mamba_data_prep.genomes.regions import parse_region, region_reader


def fasta(seed: int, width: int = 60) -> bytes:
    rng = random.Random(seed)
    text = ""
    for name, length in (("chr1", 1_234), ("chr2", 61), ("HLA:A*01:01", 90)):
        bases = "".join(rng.choices("ACGTNacgt", k=length))
        text += f">{name} of a test\n" + "".join(bases[at : at + width] + "\n" for at in range(0, length, width))
    return text.encode()


def read(genome: Genome, *regions: tuple[str, int, int]) -> list[bytes]:
    with region_reader(genome) as fetch:
        return [fetch(*region).tobytes() for region in regions]


@pytest.mark.parametrize("form", ["lines", "gzip", "crlf"])
def test_regions_are_those_of_the_genome(form: str, tmp_path: Path) -> None:
    content = {"lines": fasta(0), "gzip": gzip.compress(fasta(0)), "crlf": fasta(0).replace(b"\n", b"\r\n")}[form]
    (tmp_path / "g.fa").write_bytes(content)
    genome = Genome.open(tmp_path / "g.fa")
    regions = [("chr1", 0, 1_234), ("chr1", 59, 61), ("HLA:A*01:01", 1, 90), ("chr2", 60, 61), ("chr1", 7, 7)]
    assert read(genome, *regions) == [genome.fetch(*region).tobytes() for region in regions]


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("chr1", Interval("chr1", 0, 1_234)),
        ("1:1-10", Interval("chr1", 0, 10)),
        ("chr1:1,001-1,234", Interval("chr1", 1_000, 1_234)),
        ("chr2:61", Interval("chr2", 60, 61)),
        ("HLA:A*01:01", Interval("HLA:A*01:01", 0, 90)),
        ("HLA:A*01:01:5-6", Interval("HLA:A*01:01", 4, 6)),
        ("chr1:1-10:-", Interval("chr1", 0, 10, "-")),
        ("chr1:1-10(-)", Interval("chr1", 0, 10, "-")),
        ("chr1:1,000-1,010/rc", Interval("chr1", 999, 1_010, "-")),
        ("1:+", Interval("chr1", 0, 1_234, "+")),
        ("chr2:61(+)", Interval("chr2", 60, 61, "+")),
        ("HLA:A*01:01:5-6:-", Interval("HLA:A*01:01", 4, 6, "-")),
        ("HLA:A*01:01/rc", Interval("HLA:A*01:01", 0, 90, "-")),
    ],
)
def test_regions_are_named_as_samtools_and_bedtools_name_them(text: str, region: Interval, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_bytes(fasta(0))
    genome = Genome.open(tmp_path / "g.fa")
    assert parse_region(text, genome) == region
    assert parse_region(str(region), genome) == region


@pytest.mark.parametrize(
    "text",
    [
        "chr3",
        "chr3:1-5",
        "chr1:0-5",
        "chr1:6-5",
        "chr1:1-1235",
        "chr1:,-,",
        "chr1:-5",
        "chr1:1-5(.)",
        "chr1:1-5-",
        "chr1:6-5:-",
    ],
)
def test_other_regions_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_bytes(fasta(0))
    with pytest.raises(UserError, match=r"names no record|lie inside") as caught:
        parse_region(text, Genome.open(tmp_path / "g.fa"))
    assert text in str(caught.value)


def test_a_record_that_is_called_like_a_strand_is_meant_itself(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">a\nACGT\n>a(-)\nAC\n>b\n\n")
    genome = Genome.open(tmp_path / "g.fa")
    assert parse_region("a(-)", genome) == Interval("a(-)", 0, 2)
    assert parse_region("a:-", genome) == Interval("a", 0, 4, "-")
    with pytest.raises(UserError, match="lie inside"):
        parse_region("b", genome)


def test_an_index_beside_the_file_that_is_not_its_own_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(fasta(0, width=50))
    stale = Genome.open(path).fai()
    path.write_bytes(fasta(1, width=60))
    index = Path(f"{path}.fai")
    index.write_text(stale)
    os.utime(index, (2e9, 2e9))  # newer than the file, which is all that pyfaidx and samtools ask
    genome = Genome.open(path)
    region = ("chr1", 500, 700)
    assert read(genome, region) == [genome.fetch(*region).tobytes()]
    assert index.read_text() == stale


@pytest.mark.parametrize("replace", [True, False], ids=["another file in its place", "written over"])
def test_a_file_that_changes_while_it_is_read_is_noticed(replace: bool, tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(fasta(0))
    genome = Genome.open(path)
    with region_reader(genome) as fetch:
        fetch("chr1", 0, 100)
        if replace:
            path.unlink()
        path.write_bytes(fasta(2))
        with pytest.raises(UserError, match="this file changed after it was opened"):
            fetch("chr1", 100, 200)
