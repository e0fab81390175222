"""Regions are read by pyfaidx from an index that belongs to the file as it is."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.regions import Region, parse_region, stream_regions


def fasta(seed: int, width: int = 60) -> bytes:
    rng = random.Random(seed)
    text = ""
    for name, length in (("chr1", 1_234), ("chr2", 61), ("HLA:A*01:01", 90)):
        bases = "".join(rng.choices("ACGTNacgt", k=length))
        text += f">{name} of a test\n" + "".join(bases[at : at + width] + "\n" for at in range(0, length, width))
    return text.encode()


def read(genome: Genome, *regions: Region, piece: int = 100) -> list[bytes]:
    found = [b""] * len(regions)
    for part in stream_regions(genome, regions, piece):
        assert part.offset == len(found[part.index])
        assert part.record == str(regions[part.index])
        found[part.index] += part.sequence.tobytes()
    return found


@pytest.mark.parametrize("form", ["lines", "gzip", "crlf"])
def test_regions_are_those_of_the_genome(form: str, tmp_path: Path) -> None:
    content = {"lines": fasta(0), "gzip": gzip.compress(fasta(0)), "crlf": fasta(0).replace(b"\n", b"\r\n")}[form]
    (tmp_path / "g.fa").write_bytes(content)
    genome = Genome.open(tmp_path / "g.fa")
    regions = [Region("chr1", 0, 1_234), Region("chr1", 59, 61), Region("HLA:A*01:01", 1, 90), Region("chr2", 60, 61)]
    assert read(genome, *regions) == [genome.fetch(*region).tobytes() for region in regions]


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("chr1", Region("chr1", 0, 1_234)),
        ("1:1-10", Region("chr1", 0, 10)),
        ("chr1:1,001-1,234", Region("chr1", 1_000, 1_234)),
        ("chr2:61", Region("chr2", 60, 61)),
        ("HLA:A*01:01", Region("HLA:A*01:01", 0, 90)),
        ("HLA:A*01:01:5-6", Region("HLA:A*01:01", 4, 6)),
    ],
)
def test_regions_are_named_as_samtools_names_them(text: str, region: Region, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_bytes(fasta(0))
    assert parse_region(text, Genome.open(tmp_path / "g.fa")) == region


@pytest.mark.parametrize("text", ["chr3", "chr3:1-5", "chr1:0-5", "chr1:6-5", "chr1:1-1235", "chr1:,-,", "chr1:-5"])
def test_other_regions_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_bytes(fasta(0))
    with pytest.raises(UserError, match=r"names no record|lie inside") as caught:
        parse_region(text, Genome.open(tmp_path / "g.fa"))
    assert text in str(caught.value)


def test_an_index_beside_the_file_that_is_not_its_own_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(fasta(0, width=50))
    stale = Genome.open(path).fai()
    path.write_bytes(fasta(1, width=60))
    index = Path(f"{path}.fai")
    index.write_text(stale)
    os.utime(index, (2e9, 2e9))  # newer than the file, which is all that pyfaidx and samtools ask
    genome = Genome.open(path)
    region = Region("chr1", 500, 700)
    assert read(genome, region) == [genome.fetch(*region).tobytes()]
    assert index.read_text() == stale


@pytest.mark.parametrize("replace", [True, False], ids=["another file in its place", "written over"])
def test_a_file_that_changes_while_it_is_read_is_noticed(replace: bool, tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(fasta(0))
    genome = Genome.open(path)
    parts = stream_regions(genome, [Region("chr1", 0, 1_000)], piece=100)
    next(parts)
    if replace:
        path.unlink()
    path.write_bytes(fasta(2))
    with pytest.raises(UserError, match="this file changed after it was opened"):
        list(parts)
