"""FASTQ and .2bit are read as the FASTA of the same records is, and damage is told with its place."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqIO import TwoBitIO
from Bio.SeqRecord import SeqRecord
from hypothesis import given
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import two_bit
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.genomes.fastq import FastqFile
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.header import Header
from mamba_data_prep.genomes.regions import region_reader
from mamba_data_prep.genomes.two_bit import TwoBitFile

RECORDS = {"r1": "ACGTNACGT", "r2": "ttgaccN", "r3": "N" * 7 + "ACGTacgt" * 5 + "NN", "r4": "C"}
names = st.lists(st.text("abcXYZ019_.-|", min_size=1, max_size=8), min_size=1, max_size=6, unique=True)
bases = st.text("ACGTNacgtn", min_size=1, max_size=70)


def fastq(records: dict[str, str], *, width: int = 10**9, end: str = "\n") -> bytes:
    """Qualities begin with the letters that begin other lines."""
    lines = []
    for name, text in records.items():
        qualities = ("@+>" * len(text))[: len(text)]
        parts = [[whole[i : i + width] for i in range(0, len(whole), width)] for whole in (text, qualities)]
        lines += [f"@{name} a read", *parts[0], f"+{name}", *parts[1]]
    return end.join([*lines, ""]).encode()


def packed(records: dict[str, str], order: str = "<", version: int = 0) -> bytes:
    """An encoder of its own, as UCSC describes the format."""
    index = sum(1 + len(name) + (8 if version else 4) for name in records)
    parts, offset, table = [], 16 + index, b""
    for name, text in records.items():
        table += bytes([len(name)]) + name.encode() + struct.pack(f"{order}{'Q' if version else 'I'}", offset)
        unknown, lower = blocks(text, "Nn"), blocks(text, "acgtn")
        body = struct.pack(f"{order}I", len(text))
        for found in (unknown, lower):
            starts, sizes = zip(*found, strict=True) if found else ((), ())
            body += struct.pack(f"{order}{1 + 2 * len(found)}I", len(found), *starts, *sizes)
        body += struct.pack(f"{order}I", 0)
        codes = ["TCAG".index(letter) if letter in "TCAG" else 0 for letter in text.upper()]
        codes += [0] * (-len(codes) % 4)
        body += bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*[iter(codes)] * 4, strict=True))
        parts.append(body)
        offset += len(body)
    return struct.pack(f"{order}4I", 0x1A412743, version, len(records), 0) + table + b"".join(parts)


def blocks(text: str, letters: str) -> list[tuple[int, int]]:
    found, place = [], 0
    for inside, run in groupby(text, lambda letter: letter in letters):
        n = len(list(run))
        found += [(place, n)] if inside else []
        place += n
    return found


def read(reader: FastqFile | TwoBitFile, data: bytes, cut: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for event in reader.records([data[i : i + cut] for i in range(0, len(data), cut)]):
        if isinstance(event, Header):
            found[event.record] = ""
        else:
            found[list(found)[-1]] += event.decode()
    return found


@given(names, st.data(), st.integers(1, 80), st.integers(1, 50), st.sampled_from(["\n", "\r\n"]))
def test_fastq_written_and_read_is_the_same(
    ids: list[str], data: st.DataObject, width: int, cut: int, end: str
) -> None:
    records = {name: data.draw(bases) for name in ids}
    text = fastq(records, width=width, end=end)
    assert read(FastqFile("x", upper=False), text, cut) == records
    assert read(FastqFile("x"), text, cut) == {name: letters.upper() for name, letters in records.items()}


@given(names, st.data(), st.integers(1, 50), st.sampled_from("<>"), st.integers(0, 1))
def test_two_bit_packed_and_read_is_the_same(
    ids: list[str], data: st.DataObject, cut: int, order: str, version: int
) -> None:
    records = {name: data.draw(bases) for name in ids}
    whole = packed(records, order, version)
    assert read(TwoBitFile("x", upper=False), whole, cut) == records
    assert read(TwoBitFile("x"), whole, cut) == {name: letters.upper() for name, letters in records.items()}


def test_our_encoder_is_biopythons_reader(tmp_path: Path) -> None:
    """So that both are not wrong together."""
    (tmp_path / "x.2bit").write_bytes(packed(RECORDS))
    with (tmp_path / "x.2bit").open("rb") as file:
        found = {record.id: str(record.seq).upper() for record in TwoBitIO.TwoBitIterator(file)}
    assert found == {name: text.upper() for name, text in RECORDS.items()}


def test_biopythons_fastq_is_read(tmp_path: Path) -> None:
    made = [
        SeqRecord(Seq(text), id=name, description="", letter_annotations={"phred_quality": [30] * len(text)})
        for name, text in RECORDS.items()
    ]
    with (tmp_path / "x.fq").open("w") as file:
        SeqIO.write(made, file, "fastq")
    found = {piece.record: piece.sequence.tobytes().decode() for piece in stream_fasta(tmp_path / "x.fq")}
    assert found == {name: text.upper() for name, text in RECORDS.items()}


def test_tags_behind_an_id_and_blanks_at_a_lines_end_are_read() -> None:
    text = b"@SRR1.1\tRG:Z:a\nACGT \n+\nIIII \n@HWI-ST1:1\tBC:Z:ACGT\nAC\n+\nII\n"
    assert read(FastqFile("x"), text, 5) == {"SRR1.1": "ACGT", "HWI-ST1:1": "AC"}


def test_parts_of_a_long_record_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_bit, "_PART", 8)
    text = "".join(np.random.default_rng(1).choice(list("ACGTNacgtn"), 203))
    assert read(TwoBitFile("x", upper=False), packed({"r": text, "s": text[:9]}), 13) == {"r": text, "s": text[:9]}


@pytest.mark.parametrize("kind", ["x.fq", "x.fastq.gz", "x.2bit"])
def test_every_reader_of_sequences_takes_them(tmp_path: Path, kind: str) -> None:
    data = packed(RECORDS) if kind == "x.2bit" else fastq(RECORDS)
    path = tmp_path / kind
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    plain = tmp_path / "x.fa"
    plain.write_text("".join(f">{name}\n{text}\n" for name, text in RECORDS.items()))
    for one, other in zip(stream_fasta(path, 10), stream_fasta(plain, 10), strict=True):
        assert (one.record, one.index, one.offset, one.is_last) == (
            other.record,
            other.index,
            other.offset,
            other.is_last,
        )
        assert np.array_equal(one.sequence, other.sequence)
    genome = Genome.open(path)
    assert [(record.name, record.length) for record in genome.records] == [(k, len(v)) for k, v in RECORDS.items()]
    assert genome.fetch(2, 5, 12).tobytes() == b"NNACGTA"


@given(names, st.data(), st.sampled_from("<>"), st.integers(0, 1))
def test_places_in_a_two_bit_file_are_read_without_the_rest(
    ids: list[str], data: st.DataObject, order: str, version: int
) -> None:
    records = {name: data.draw(bases) for name in ids}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "x.2bit"
        path.write_bytes(packed(records, order, version))
        patch.setattr(TwoBitFile, "records", None)
        genome = Genome.open(path, Path(folder) / "cache")
        assert not list((Path(folder) / "cache").rglob("bases*"))
        assert genome.packed
        assert [tuple(record) for record in genome.records] == [(name, len(text)) for name, text in records.items()]
        for number, (name, text) in enumerate(records.items()):
            start = data.draw(st.integers(0, len(text)))
            end = data.draw(st.integers(start, len(text)))
            wanted = text[start:end].upper()
            assert genome.fetch(name, start, end).tobytes().decode() == wanted
            place = (np.array([number]), np.array([start]), np.array([end]))
            assert genome.unknown_counts(*place).tolist() == [wanted.count("N")]
            with region_reader(genome) as fetch:
                assert fetch(name, start, end).tobytes().decode() == wanted
        again = Genome.open(path, Path(folder) / "cache")
        assert (again.records, again.fingerprint) == (genome.records, genome.fingerprint)
        genome.close()
        again.close()


def test_a_two_bit_file_that_changes_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.2bit"
    path.write_bytes(packed(RECORDS))
    genome = Genome.open(path)
    path.write_bytes(packed({**RECORDS, "r1": "TTTTTTTTT"}))
    with pytest.raises(UserError, match="this file changed after it was opened"):
        genome.fetch("r1", 0, 4)
    assert Genome.open(path).fetch("r1", 0, 4).tobytes() == b"TTTT"


DAMAGED = {
    "ends in a read": (fastq(RECORDS)[:20], 2, "ends inside a read"),
    "ends in qualities": (b"@a\nACGT\n+\nII", 4, "ends inside a read's qualities"),
    "too many qualities": (b"@a\nACGT\n+\nIIIII\n", 4, "4 bases has 5 qualities"),
    "qualities of nothing": (b"@a\n\n+\nIII\n", 4, "0 bases has 3 qualities"),
    "no quality": (b"@a\nACGT\n+\nII\xe9I\n", 4, "a quality is none of"),
    "no header": (b"@a\nAC\n+\nII\nread\nAC\n+\nII\n", 5, "begin with '@'"),
    "no base": (b"@a\nAC1T\n+\nIIII\n", 2, "column 3"),
    "no id": (b"@a\nA\n+\nI\n@\nA\n+\nI\n", 5, "no id"),
    "the same id": (b"@a\nA\n+\nI\n@a\nA\n+\nI\n", 5, "used by an earlier record"),
    "no bases": (b"@a\n\n+\n\n", None, "no read of this FASTQ file has bases"),
    "SAM": (b"@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:5\n", 1, "this is SAM"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_fastq_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    data, line, problem = DAMAGED[name]
    path = tmp_path / "x.fq"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        list(stream_fasta(path))
    assert problem in str(caught.value)
    assert (caught.value.line, caught.value.path) == (line, path)


def test_every_shortened_or_changed_two_bit_file_is_refused_or_read(tmp_path: Path) -> None:
    """Never a traceback, and a file that is cut is never taken for a whole one."""
    whole = packed(RECORDS)
    for cut in range(4, len(whole)):
        with pytest.raises(UserError):
            read(TwoBitFile("x"), whole[:cut], 7)
        with pytest.raises(UserError):
            TwoBitFile("x").places(io.BytesIO(whole[:cut]))
    random = np.random.default_rng(3)
    for _ in range(400):
        changed = bytearray(whole)
        changed[random.integers(4, len(whole))] = random.integers(256)
        with suppress(UserError):
            read(TwoBitFile("x"), bytes(changed), 64)
        with suppress(UserError):
            TwoBitFile("x").places(io.BytesIO(changed))


def test_a_gzip_file_that_is_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.fq.gz"
    path.write_bytes(gzip.compress(fastq({f"r{i}": "ACGT" * 50 for i in range(2000)}))[:-40])
    with pytest.raises(UserError, match="gzip"):
        list(stream_fasta(path))
