"""Odd and broken BED and GTF files: read with exactly the expected intervals, or refused with file, line and mend."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.gtf import read_tss
from mamba_data_prep.genomes.intervals import Interval, read_bed, within


@pytest.fixture
def genome(write_fasta, make_bases) -> Genome:
    return Genome.open(write_fasta({"chr1": make_bases(100, 1), "2": make_bases(50, 2), "MT": make_bases(20, 3)}))


GOOD = {
    "three_columns": (b"chr1\t0\t10\n", [("chr1", 0, 10, ".", None)]),
    "no_last_newline": (b"chr1\t0\t10", [("chr1", 0, 10, ".", None)]),
    "crlf": (b"chr1\t0\t10\r\nchr1\t20\t30\r\n", [("chr1", 0, 10, ".", None), ("chr1", 20, 30, ".", None)]),
    "labels": (b"chr1\t0\t10\ttrain\n", [("chr1", 0, 10, ".", "train")]),
    "strand": (b"chr1\t0\t10\tg\t0\t-\n", [("chr1", 0, 10, "-", "g")]),
    "twelve_columns": (b"chr1\t0\t10\tg\t0\t+\t0\t10\t0\t1\t10,\t0,\n", [("chr1", 0, 10, "+", "g")]),
    "headers": (
        b'#made\nbrowser position chr1:1\ntrack name="a b"\n\nchr1\t0\t10\n#end\n',
        [("chr1", 0, 10, ".", None)],
    ),
    "track_tab": (b"track\tname=x\nchr1\t0\t10\n", [("chr1", 0, 10, ".", None)]),
    "byte_order_mark": (b"\xef\xbb\xbfchr1\t0\t10\n", [("chr1", 0, 10, ".", None)]),
    "empty_fields": (b"chr1\t0\t10\t\t\t\n", [("chr1", 0, 10, ".", None)]),
    "whole_record": (b"chr1\t0\t100\n", [("chr1", 0, 100, ".", None)]),
    "other_names": (b"1\t0\t10\nchr2\t0\t10\nchrM\t0\t5\n", [("chr1", 0, 10), ("2", 0, 10), ("MT", 0, 5)]),
    "gzip": (gzip.compress(b"chr1\t0\t10\n"), [("chr1", 0, 10, ".", None)]),
}
LINE = b"chr1\t0\t10\n"
BAD = {
    "empty": (b"", None, "no interval", "BED file"),
    "comments_only": (b"#a\n\n", None, "no interval", "BED file"),
    "two_columns": (LINE + b"chr1\t5\n", 2, "fewer than three", "three columns"),
    "blanks": (b"chr1 0 10\n", 1, "fewer than three", "tabs, not blanks"),
    "commas": (b"chr1,0,10\n", 1, "fewer than three", "three columns"),
    "start_is_end": (LINE + b"#\nchr1\t10\t10\n", 3, "not beyond the start", "correct this line"),
    "start_after_end": (LINE + b"chr1\t30\t20\n", 2, "not beyond the start", "correct this line"),
    "negative_start": (b"chr1\t-1\t10\n", 1, "start is negative", "digits alone"),
    "negative_end": (b"chr1\t1\t-10\n", 1, "end is negative", "digits alone"),
    "header_row": (b"chrom\tstart\tend\n" + LINE, 1, "start is no whole number", "digits alone"),
    "thousands": (b"chr1\t1,000\t2,000\n", 1, "start is no whole number", "digits alone"),
    "decimal": (b"chr1\t1.0\t2.0\n", 1, "start is no whole number", "digits alone"),
    "exponent": (b"chr1\t0\t1e2\n", 1, "end is no whole number", "digits alone"),
    "empty_start": (b"chr1\t\t10\n", 1, "start is no whole number", "digits alone"),
    "underscores": (b"chr1\t0\t1_0\n", 1, "end is no whole number", "digits alone"),
    "other_digits": ("chr1\t0\t\u0661\u0660\n".encode(), 1, "end is no whole number", "digits alone"),
    "huge": (b"chr1\t0\t" + b"9" * 30 + b"\n", 1, "end is no whole number", "digits alone"),
    "no_chromosome": (b"\t0\t10\n", 1, "name is empty", "correct this line"),
    "strand": (b"chr1\t0\t10\tg\t0\tplus\n", 1, "no strand", "correct this line"),
    "unknown_chromosome": (LINE + b"chr9\t0\t10\n", 2, "no record of this name", "genome that this belongs to"),
    "beyond_the_end": (LINE + b"chr2\t40\t51\n", 2, "beyond the record's end", "genome version"),
    "beyond_the_end_other_name": (LINE + LINE + b"1\t40\t101\n", 3, "beyond the record's end", "genome version"),
    "nul": (b"chr1\t0\t10\n\0\0\n", 2, "not text", "save it in UTF-8"),
    "latin1": (b"chr1\t0\t10\tg\xe9ne\n", 1, "not text", "save it in UTF-8"),
    "utf16": ("chr1\t0\t10\n".encode("utf-16"), 1, "UTF-16", "plain text"),
    "truncated_gzip": (gzip.compress(LINE * 50)[:-10], 27, "too early", "again"),
    "fasta": (b">a\nACGT\n", 1, "fewer than three", "three columns"),
    "html": (b"<html>\n", 1, "fewer than three", "three columns"),
    "endless_line": (b"x" * 5_000_000, 1, "longer than 4 MB", "check"),
}


@pytest.mark.parametrize("name", GOOD)
def test_bed_read_exactly(name: str, genome: Genome, tmp_path: Path) -> None:
    content, expected = GOOD[name]
    path = tmp_path / "a.bed"
    path.write_bytes(content)
    found = [(i.name, i.start, i.end, i.strand, i.label) for i in read_bed(path, genome)]
    assert [row[: len(expected[0])] for row in found] == expected


@pytest.mark.parametrize("name", BAD)
def test_bed_refused_with_file_line_and_mend(name: str, genome: Genome, tmp_path: Path) -> None:
    content, line, problem, fix = BAD[name]
    path = tmp_path / "a.bed"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_bed(path, genome)
    error = caught.value
    assert (str(error.path), error.line) == (str(path), line)
    assert problem in error.problem
    assert error.fix is not None
    assert fix in error.fix


def test_missing_bed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.bed: there is no such file"):
        read_bed(tmp_path / "a.bed")


def test_other_spelling_is_said(genome: Genome, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        within(genome, [Interval("chr2", 0, 5), Interval("chr2", 5, 6), Interval("chr1", 0, 5)])
    assert [r.message for r in caplog.records] == ["chr2 is called 2 in genome.fa: the two are taken for the same"]


def test_annotation_of_a_larger_genome_is_passed_over(genome: Genome, caplog: pytest.LogCaptureFixture) -> None:
    sites = [Interval("chr7", 0, 5), Interval("chr1", 5, 6), Interval("X", 0, 5)]
    with caplog.at_level(logging.WARNING):
        assert within(genome, sites, elsewhere=True) == [sites[1]]
    assert "2 of 3 intervals lie on records that genome.fa has not" in caplog.text
    with pytest.raises(UserError, match="no record of this name"):
        within(genome, [sites[0]], elsewhere=True)


GTF = b"""#!genome
chr1\tx\tgene\t11\t40\t.\t+\t.\tgene_id "G1"; gene_name "ONE";
chr1\tx\ttranscript\t11\t40\t.\t+\t.\tgene_id "G1"; transcript_id "T1"; gene_name "ONE";
chr1\tx\ttranscript\t11\t30\t.\t+\t.\tgene_id "G1"; transcript_id "T2"; gene_name "ONE";
chr1\tx\texon\t11\t20\t.\t+\t.\tgene_id "G1";
2\tx\ttranscript\t5\t50\t.\t-\t.\tgene_id "G2";
"""
GFF = b"""##gff-version 3
chr1\tx\tgene\t11\t40\t.\t+\t.\tID=gene1;Name=ONE
chr1\tx\tmRNA\t13\t40\t.\t-\t.\tID=t1;Parent=gene1
##FASTA
>chr1
ACGT
"""


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.gtf", GTF, [("chr1", 10, 11, "+", "G1"), ("2", 49, 50, "-", "G2")]),
        ("a.gtf.gz", gzip.compress(GTF, mtime=0), [("chr1", 10, 11, "+", "G1"), ("2", 49, 50, "-", "G2")]),
        ("a.gff3", GFF, [("chr1", 39, 40, "-", "t1")]),
        ("genes.gtf", GTF[: GTF.index(b"chr1\tx\ttranscript")], [("chr1", 10, 11, "+", "G1")]),
        (
            "a.bed",
            b"chr1\t10\t40\tg\t0\t-\nchr1\t10\t40\th\t0\t+\n",
            [("chr1", 39, 40, "-", "g"), ("chr1", 10, 11, "+", "h")],
        ),
    ],
)
def test_start_sites_know_their_strand(
    name: str, content: bytes, expected: list, genome: Genome, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for among in (None, genome):
        assert [(i.name, i.start, i.end, i.strand, i.label) for i in read_tss(path, among)] == expected


@pytest.mark.parametrize("content", [b"2\t20\t21\n", b"2\t20\t21\tg\t0\t.\n"])
def test_a_start_site_without_a_strand_is_refused_unless_the_strand_is_said(
    content: bytes, genome: Genome, tmp_path: Path
) -> None:
    path = tmp_path / "tss.bed"
    path.write_bytes(b"chr1\t10\t11\tg\t0\t-\n" + content)
    with pytest.raises(UserError, match="no strand") as caught:
        read_tss(path, genome)
    assert caught.value.line == 2
    assert "--strand" in str(caught.value.fix)
    assert [i.strand for i in read_tss(path, genome, "plus")] == ["-", "+"]
    assert [(i.start, i.strand) for i in read_tss(path, genome, "minus")] == [(10, "-"), (20, "-")]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (b"", None, "no transcript"),
        (b"chr1\tx\texon\t1\t4\t.\t+\t.\t\n", None, "no transcript"),
        (b"chr1 x transcript 1 4 . + . a\n", 1, "too few columns"),
        (b"#\nchr1\tx\ttranscript\t0\t4\t.\t+\t.\t\n", 2, "start is no position"),
        (b"chr1\tx\ttranscript\t1\t4.5\t.\t+\t.\t\n", 1, "end is no position"),
        (b"chr1\tx\ttranscript\t9\t4\t.\t+\t.\t\n", 1, "not beyond the start"),
        (b"chr1\tx\ttranscript\t1\t4\t.\t.\t.\t\n", 1, "needs a strand"),
        (b"chr1\tx\ttranscript\t1\t101\t.\t-\t.\t\n", 1, "beyond the record's end"),
        (b"chr8\tx\ttranscript\t1\t101\t.\t-\t.\t\n", 1, "no record of this name"),
    ],
)
def test_gtf_refused_with_file_and_line(
    content: bytes, line: int | None, problem: str, genome: Genome, tmp_path: Path
) -> None:
    path = tmp_path / "a.gtf"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_tss(path, genome)
    assert (str(caught.value.path), caught.value.line) == (str(path), line)
    assert problem in caught.value.problem
    assert caught.value.fix


def test_numbers_may_have_blanks_and_separators_of_old_around_them(tmp_path: Path) -> None:
    (tmp_path / "a.bed").write_bytes(b"chr1\t\x1e5\x1f\t 9 \n")
    assert [(i.start, i.end) for i in read_bed(tmp_path / "a.bed")] == [(5, 9)]
