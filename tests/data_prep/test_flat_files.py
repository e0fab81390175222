"""GenBank and EMBL files give what the FASTA file of the same records gives, wherever a FASTA file is read."""

from __future__ import annotations

import gzip
import io
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.genomes.genome import Genome

FORMATS = ("genbank", "embl")
FIRST_EMBL = """ID   X56734; SV 1; linear; mRNA; STD; PLN; 24 BP.
XX
AC   X56734;
XX
DE   Trifolium repens mRNA; caf\xe9
XX
FH   Key             Location/Qualifiers
FT   source          1..24
FT                   /organism="Trifolium repens"
XX
SQ   Sequence 24 BP; 9 A; 4 C; 4 G; 7 T; 0 other;
     aaacaaacca aatatggatt ttnn                                                 24
//
"""
PROTEIN = """LOCUS       AAA12345                  10 aa            linear   PLN 01-JAN-2000
DEFINITION  a protein.
ACCESSION   AAA12345
VERSION     AAA12345.1
ORIGIN
        1 mkvlaeefil
//
"""
NO_SEQUENCE = """LOCUS       NC_000020           64444167 bp    DNA     linear   CON 01-JAN-2020
DEFINITION  Homo sapiens chromosome 20.
ACCESSION   NC_000020
VERSION     NC_000020.11
CONTIG      join(gap(60000),NT_011387.9:1..100)
//
"""


def records(lengths: tuple[int, ...] = (1_000, 61, 5)) -> list[SeqRecord]:
    rng = random.Random(1)
    found = []
    for number, length in enumerate(lengths):
        sequence = Seq("".join(rng.choices("ACGTN", [5, 5, 5, 5, 1], k=length)))
        record = SeqRecord(
            sequence, id=f"AB{number:06d}.2", description="from a lake", annotations={"molecule_type": "DNA"}
        )
        record.features = [SeqFeature(SimpleLocation(0, 4, 1), type="gene", qualifiers={"gene": ["dnaA"]})]
        found.append(record)
    return found


def written(format: str) -> bytes:
    stream = io.StringIO()
    SeqIO.write(records(), stream, format)
    return stream.getvalue().encode()


def read(path: Path | str, piece: int = 7) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in stream_fasta(path, piece):
        found[part.record] = found.get(part.record, b"") + part.sequence.tobytes()
    return found


EXPECTED = {record.id: bytes(record.seq) for record in records()}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_flat_file_gives_what_its_fasta_gives(format: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "lake.txt"  # the format is known by what the file holds, not by its name
    path.write_bytes(gzip.compress(written(format)) if packed else written(format))
    assert read(path) == EXPECTED
    genome = Genome.open(path)
    assert [(record.name, record.length) for record in genome.records] == [(k, len(v)) for k, v in EXPECTED.items()]
    for name, bases in EXPECTED.items():
        assert genome.fetch(name, 2, len(bases)).tobytes() == bases[2:]
    unknown = genome.unknown_counts(np.array([0]), np.array([0]), np.array([1_000]))
    assert unknown.tolist() == [EXPECTED["AB000000.2"].count(b"N")]


@pytest.mark.parametrize("format", FORMATS)
def test_standard_input_is_read(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake").write_bytes(written(format))
    with (tmp_path / "lake").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert read("-") == EXPECTED


def test_each_record_tells_its_line_and_title(tmp_path: Path) -> None:
    path = tmp_path / "lake.gb"
    path.write_bytes(b"\xef\xbb\xbf" + written("genbank"))
    text = written("genbank").decode().splitlines()
    begins = [number for number, line in enumerate(text, 1) if line.startswith("LOCUS")]
    firsts = [part for part in stream_fasta(path) if part.offset == 0]
    assert [(part.line, part.description) for part in firsts] == [(line, "from a lake") for line in begins]


def test_an_entry_as_the_archive_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "x.embl"
    path.write_bytes(FIRST_EMBL.encode("latin-1"))
    assert read(path) == {"X56734.1": b"AAACAAACCAAATATGGATTTTNN"}


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lake.gb"
    path.write_bytes(written("genbank").replace(b"\n", b"\r\n"))
    assert read(path) == EXPECTED


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_breaks_off_is_refused(format: str, tmp_path: Path) -> None:
    path, whole = tmp_path / "part", written(format)
    ends = [number + 3 for number in range(len(whole)) if whole.startswith(b"//\n", number)]
    for end in range(30, len(whole) - 3, 11):
        if any(0 <= end - whole_records < 2 for whole_records in ends):
            continue
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"part, line \d[\s\S]*whole|complete"):
            read(path)


def test_protein_is_refused_with_its_record(tmp_path: Path) -> None:
    path = tmp_path / "p.gb"
    path.write_text(PROTEIN)
    with pytest.raises(UserError, match=r"line 1, record 'AAA12345.1': 'L' is not a base, at position 4") as caught:
        read(path)
    assert "protein" in str(caught.value)


def test_an_entry_without_its_sequence_says_how_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "c.gb"
    path.write_text(NO_SEQUENCE)
    with pytest.raises(UserError, match=r"no record of this GenBank file has bases[\s\S]*GenBank \(full\)"):
        read(path)
    path.write_text(NO_SEQUENCE + written("genbank").decode())
    assert read(path) == {"NC_000020.11": b"", **EXPECTED}


def test_a_repeated_accession_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.gb"
    path.write_bytes(written("genbank") * 2)
    with pytest.raises(UserError, match=r"record 'AB000000.2': this id was used by an earlier record"):
        read(path)
