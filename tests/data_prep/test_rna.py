"""RNA is read as DNA, and each reader tells it once for each file."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from genomamba.classifier.tasks.labelled_tables import read_table
from mamba_data_prep.genomes import rna
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.genomes.genome import Genome

GENBANK = b"""LOCUS       X1                        10 bp    RNA     linear   VRL 01-JAN-2020
ACCESSION   X1
VERSION     X1.1
ORIGIN
        1 acguuacgun
//
"""
FILES = {
    "lines.fa": b">a U\nACGU\nuuTT\n>U\nAC\n",
    "comment.fa": b">a\nACGU\n;UUUU not these\nUU\n",
    "crlf.fa.gz": gzip.compress(b">a\r\nACGUU\r\nU\r\n"),
    "reads.fq": b"@U\nACGUUu\n+U\nUUUUUU\n",
    "x.gb": GENBANK,
}
READ = {
    "lines.fa": ("ACGTTTTTAC", 3), "comment.fa": ("ACGTTT", 3), "crlf.fa.gz": ("ACGTTT", 3), "reads.fq": ("ACGTTT", 3),
    "x.gb": ("ACGTTACGTN", 3),
}  # fmt: skip


def write(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(FILES[name])
    return folder / name


@pytest.mark.parametrize("name", FILES)
def test_each_reader_counts_and_tells_once(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, name)
    bases, count = READ[name]
    for _ in range(2):
        assert b"".join(piece.sequence.tobytes() for piece in stream_fasta(path, 3)).decode() == bases
        genome = Genome.open(path)
        assert (
            b"".join(genome.fetch(i, 0, n).tobytes() for i, n in enumerate(genome.lengths.tolist())).decode() == bases
        )
    assert caplog.messages == [f"{path}: {count} bases are U (RNA) and are read as T"]


@pytest.mark.parametrize("name", ["lines.fa", "crlf.fa.gz"])
def test_a_genome_that_was_indexed_by_another_run_tells_it_too(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, name)
    Genome.open(path)
    monkeypatch.setattr(rna, "_told", set())
    Genome.open(path)
    assert len(caplog.messages) == 2


def test_a_table_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sequence,label\nACGU,U\nACuT,b\nACGT,UU\n")
    assert [row.bases.tobytes() for row in read_table(path)] == [b"ACGT", b"ACTT", b"ACGT"]
    assert caplog.messages == [f"{path}: 2 bases are U (RNA) and are read as T"]


def test_dna_is_not_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "U.fa"
    path.write_text(">U Uracil\n;UUU\nACGT\n")
    list(stream_fasta(path))
    Genome.open(path)
    assert caplog.messages == []


def test_it_is_told_on_standard_error(tmp_path: Path) -> None:
    path = write(tmp_path, "lines.fa")
    program = "import sys; from mamba_data_prep.genomes.fasta import stream_fasta; list(stream_fasta(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", f"{path}: 3 bases are U (RNA) and are read as T\n")
