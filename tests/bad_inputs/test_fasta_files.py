"""Odd and broken FASTA files: each is read with exactly the expected bases, or refused with file, line and mend.

Every file is read in both ways, as a stream and at random.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.genomes.genome import Genome

IUPAC = b"ACGTRYSWKMBDHVN"


def bgzip(data: bytes, block: int = 100, *, end: bool = True) -> bytes:
    """Data as bgzip writes it: gzip members that know their own size, and an empty one at the end."""

    def member(piece: bytes) -> bytes:
        deflate = zlib.compressobj(wbits=-15)
        body = deflate.compress(piece) + deflate.flush()
        head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25)
        return head + body + struct.pack("<II", zlib.crc32(piece), len(piece))

    members = [member(data[i : i + block]) for i in range(0, len(data), block)]
    return b"".join(members + ([member(b"")] if end else []))


@dataclass(frozen=True)
class Good:
    """A file that is read."""

    name: str
    content: bytes
    records: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Bad:
    """A file that is refused: the line, words of the problem, words of the mend."""

    name: str
    content: bytes
    line: int | None
    problem: str
    fix: str


SMALL = b">a one\nACGT\nAC\n>b\nGG\n"
READ = {"a": b"ACGTAC", "b": b"GG"}
GOOD = [
    Good("plain", SMALL, READ),
    Good("no_last_newline", SMALL[:-1], READ),
    Good("crlf", SMALL.replace(b"\n", b"\r\n"), READ),
    Good("crlf_no_last_newline", SMALL.replace(b"\n", b"\r\n")[:-2], READ),
    Good("crlf_half_last_newline", SMALL.replace(b"\n", b"\r\n")[:-1], READ),
    Good("cr_only", SMALL.replace(b"\n", b"\r"), READ),
    Good("cr_only_no_last", SMALL.replace(b"\n", b"\r")[:-1], READ),
    Good("mixed_line_ends", b">a\r\nACGT\nAC\r>b\nGG\r\n", READ),
    Good("crlf_lines_then_lf_line", b">a\r\nACG\r\nTAC\n>b\nGG\n", READ),
    Good("lf_then_crlf", b">a\nACG\nTAC\r\n>b\r\nGG\n", READ),
    Good("crlf_full_last_line_without_end", b">b\r\nGG\r\n>a\r\nACG\r\nTAC", {"b": b"GG", "a": b"ACGTAC"}),
    Good("crlf_last_line_one_longer_without_end", b">b\r\nGG\r\n>a\r\nACG\r\nTACG", {"b": b"GG", "a": b"ACGTACG"}),
    Good("ragged", b">a\nA\nCGT\nAC\n>b\nG\nG\n", READ),
    Good("short_line_in_the_middle", b">a\nACG\nT\nACG\n", {"a": b"ACGTACG"}),
    Good("base_replaced_by_newline", b">a\nACGT\nAC\nT\nACGT\nAC\n", {"a": b"ACGTACTACGTAC"}),
    Good("one_base_a_line", b">a\nA\nC\nG\nT\nA\nC\n>b\nG\nG\n", READ),
    Good("one_line_each", b">a\nACGTAC\n>b\nGG\n", READ),
    Good("one_base", b">a\nA\n", {"a": b"A"}),
    Good("one_base_no_newline", b">a\nA", {"a": b"A"}),
    Good("lower_case", SMALL.lower(), READ),
    Good("mixed_case", b">a\nAcGt\naC\n>b\ngG\n", READ),
    Good("iupac", b">a\n" + IUPAC + b"\n", {"a": IUPAC}),
    Good("iupac_lower", b">a\n" + IUPAC.lower() + b"\n", {"a": IUPAC}),
    Good("rna", b">a\nACGUuAC\n", {"a": b"ACGTTAC"}),
    Good("only_n", b">a\nNNNN\nNN\n", {"a": b"NNNNNN"}),
    Good("blank_lines_between_records", b">a\nACGT\nAC\n\n\n>b\nGG\n\n", READ),
    Good("blank_lines_at_start", b"\n\n" + SMALL, READ),
    Good("blank_line_inside_record", b">a\nACGT\n\nAC\n>b\nGG\n", READ),
    Good("blank_line_after_header", b">a\n\nACGT\nAC\n>b\nGG\n", READ),
    Good("blank_crlf_at_end", SMALL.replace(b"\n", b"\r\n") + b"\r\n\r\n", READ),
    Good("blanks_in_empty_line", b">a\nACGT\n  \t\nAC\n>b\nGG\n", READ),
    Good("leading_blanks_in_lines", b">a\n  ACGT\n  AC\n>b\n\tGG\n", READ),
    Good("trailing_blanks_in_lines", b">a\nACGT  \nAC\t\n>b\nGG \n", READ),
    Good("blanks_inside_lines", b">a\nAC GT\nAC\n>b\nG G\n", READ),
    Good("blank_hides_longer_line", b">a\nACGT\nAC \nGT\n", {"a": b"ACGTACGT"}),
    Good("comment_lines", b";made by hand\n>a one\n;note\nACGT\n;more > text\nAC\n>b\nGG\n;end", READ),
    Good("byte_order_mark", b"\xef\xbb\xbf" + SMALL, READ),
    Good("byte_order_mark_only_base", b"\xef\xbb\xbf>a\nA", {"a": b"A"}),
    Good("utf8_in_description", ">a café ± né\nACGTAC\n>b\nGG\n".encode(), READ),
    Good("tab_after_id", b">a\tone two\nACGTAC\n>b\nGG\n", READ),
    Good("angle_in_description", b">a x>y >z\nACGTAC\n>b\nGG\n", READ),
    Good("id_with_bars", b">gi|1|ref|NC_1.2| x\nAC\n", {"gi|1|ref|NC_1.2|": b"AC"}),
    Good("long_description", b">a " + b"x" * 300_000 + b"\nACGTAC\n>b\nGG\n", READ),
    Good("widths_differ_by_record", b">a\nACG\nTAC\n>b\nGG\n>c\nA\nA\nA\n", {**READ, "c": b"AAA"}),
    Good("empty_record_first", b">a\n>b\nGG\n", {"a": b"", "b": b"GG"}),
    Good("empty_record_middle", b">a\nAC\n>b\n\n>c\nGG\n", {"a": b"AC", "b": b"", "c": b"GG"}),
    Good("empty_record_last", b">a\nAC\n>b\n", {"a": b"AC", "b": b""}),
    Good("empty_record_cr_only", b">a\rAC\r>b\r", {"a": b"AC", "b": b""}),
    Good("empty_record_before_long_lines", b">a\n>b\nACGT\nACGT\nA\n", {"a": b"", "b": b"ACGTACGTA"}),
    Good("blank_before_id", b"> a one\nACGTAC\n>\t b\nGG\n", READ),
    Good("latin1_header", b">a caf\xe9\nACGTAC\n>b \xb5\nGG\n", READ),
    Good("headers_joined_by_ctrl_a", b">a one\x01c two\nACGTAC\n>b\x01d\nGG\n", READ),
    Good("gzip", gzip.compress(SMALL), READ),
    Good("gzip_two_members", gzip.compress(SMALL[:9]) + gzip.compress(SMALL[9:]), READ),
    Good("gzip_zero_padding", gzip.compress(SMALL) + b"\0" * 512, READ),
    Good("gzip_crlf", gzip.compress(SMALL.replace(b"\n", b"\r\n")), READ),
    Good("bgzip", bgzip(SMALL, block=5), READ),
    Good("bgzip_one_block", bgzip(SMALL), READ),
]
BAD = [
    Bad("empty", b"", 1, "no record", "complete"),
    Bad("only_blank_lines", b"\n\n \n", 4, "no record", "complete"),
    Bad("only_comments", b";a\n;b\n", 3, "no record", "complete"),
    Bad("gzip_of_nothing", gzip.compress(b""), 1, "no record", "complete"),
    Bad("header_only", b">a\n", 1, "no record of this file has bases", "complete"),
    Bad("header_only_no_newline", b">a", 1, "no record of this file has bases", "complete"),
    Bad("headers_only", b">a\n>b\n\n", 2, "no record of this file has bases", "complete"),
    Bad("duplicate_ids", b">a\nAC\n>b\nG\n>a other\nGG\n", 5, "used by an earlier record", "own id"),
    Bad("no_id", b">\nAC\n", 1, "no id", "write an id after '>'"),
    Bad("blanks_for_an_id", b">b\nA\n> \t\nAC\n", 3, "no id", "write an id after '>'"),
    Bad("nul_in_header", b">a\0b\nAC\n", 1, "control characters", ">NAME"),
    Bad("escape_in_header", b">a caf\x1b[31m\nAC\n", 1, "control characters", ">NAME"),
    Bad("endless_header", b">a" + b"x" * 1_200_000, 1, "longer than a million", "line ends"),
    Bad("no_header", b"ACGT\nACGT\n", 1, "before the first header", "'>NAME'"),
    Bad("text_before_header", b"\nmy sequences\n>a\nAC\n", 2, "before the first header", "'>NAME'"),
    Bad("indented_header_first", b"  >a\nAC\n", 1, "does not begin its line", "blanks before '>'"),
    Bad("indented_header_later", b">a\nAC\n >b\nGG\n", 3, "'>' inside a sequence line", "line of its own"),
    Bad("header_glued_to_sequence", b">a\nAC>b\nGG\n", 2, "'>' inside a sequence line", "line of its own"),
    Bad("nul_in_sequence", b">a\nAC\nG\0T\n", 3, "NUL", "damaged"),
    Bad("zeros_at_end", b">a\nAC\n" + b"\0" * 100, 3, "NUL", "damaged"),
    Bad("non_ascii_sequence", ">a\nACGT\nACé\n".encode(), 3, "not ASCII, column 3", "remove it"),
    Bad("non_breaking_space", b">a\nAC\xa0GT\n", 2, "not ASCII, column 3", "remove it"),
    Bad("form_feed", b">a\nAC\x0cGT\n", 2, "is not a base, column 3", "N"),
    Bad("gap", b">a\nAC\n>b\nAC--GT\n", 4, "alignment gap", "remove the gaps"),
    Bad("dot_gap", b">a\nAC..GT\n", 2, "alignment gap", "remove the gaps"),
    Bad("stop", b">a\nACGT*\n", 2, "protein", "DNA"),
    Bad("protein", b">p\nMKVLAEEF\n", 2, "protein", "DNA"),
    Bad("protein_on_third_line", b">p\nMKV\nMKV\nILEF\n", 4, "protein", "DNA"),
    Bad("masked_with_x", b">a\nACXXGT\n", 2, "'X'", "write N"),
    Bad("question_mark", b">a\nAC?GT\n", 2, "'?' is not a base", "N"),
    Bad("digits", b">a\n  1 ACGT\n", 2, "a digit", "line numbers"),
    Bad("quoted", b'>a\n"ACGT"\n', 2, "is not a base, column 1", "N"),
    Bad("spread_sheet", b"id,sequence\na,ACGT\n", 1, "before the first header", "'>NAME'"),
    Bad("fastq_cut", b"@r1\nACGT\n+\nII", 4, "ends inside a read's qualities", "copy or download"),
    Bad("fastq_quality_after_header", b">r1\nACGT\n+\nIIII\n", 3, "FASTQ", "seqtk"),
    Bad("html", b"<!DOCTYPE html>\n<html>404</html>\n", 1, "web page", "download the file itself"),
    Bad("html_gzip", gzip.compress(b"<html>\n>a\nAC\n</html>"), 1, "web page", "download the file itself"),
    Bad("json", b'{"error": "no such id"}\n', 1, "JSON", "FASTA file"),
    Bad("gff", b"##gff-version 3\nchr1\t.\tgene\n", 1, "GFF", "FASTA file"),
    Bad("vcf", b"##fileformat=VCFv4.2\n#CHROM\n", 1, "VCF", "FASTA file"),
    Bad("clustal", b"CLUSTAL W\n\na AC-GT\n", 1, "Clustal", "without gaps"),
    Bad("bam", bgzip(b"BAM\1\0\0\0\0"), 1, "BAM", "samtools"),
    Bad("cram", b"CRAM\3\0abc", 1, "CRAM", "samtools"),
    Bad("pdf", b"%PDF-1.7\n", 1, "PDF", "text file"),
    Bad("binary", bytes(range(1, 40)) * 10, 1, "binary", "FASTA file"),
    Bad("elf", b"\x7fELF\2\1\1\0" + b"\0" * 50, 1, "binary", "FASTA file"),
    Bad("utf16", SMALL.decode().encode("utf-16"), 1, "UTF-16", "plain text"),
    Bad("bzip2", bz2.compress(SMALL), 1, "bzip2", "bgzip"),
    Bad("xz", lzma.compress(SMALL), 1, "xz", "bgzip"),
    Bad("zstd", b"\x28\xb5\x2f\xfd\x04\x00", 1, "zstd", "bgzip"),
    Bad("zip", b"PK\x03\x04" + b"\0" * 30, 1, "zip archive", "unzip"),
    Bad("gzip_truncated", gzip.compress(SMALL)[:-9], 6, "ends too early", "again"),
    Bad("gzip_header_alone", b"\x1f\x8b", 1, "ends too early", "again"),
    Bad(
        "gzip_second_member_truncated",
        gzip.compress(b">a\nACGT\n") + gzip.compress(SMALL)[:12],
        3,
        "too early",
        "again",
    ),
    Bad(
        "gzip_wrong_checksum", gzip.compress(SMALL)[:-8] + b"\1\2\3\4" + gzip.compress(SMALL)[-4:], 1, "broken", "again"
    ),
    Bad("gzip_bit_flip", b"\x1f\x8b\x08\0\0\0\0\0\0\3" + b"\xff" * 40, 1, "broken", "again"),
    Bad("gzip_then_rubbish", gzip.compress(SMALL) + b"rubbish", 6, "broken", "again"),
    Bad("bgzip_without_end", bgzip(SMALL, end=False), 6, "end marker is missing", "again"),
    Bad("bgzip_truncated_in_block", bgzip(SMALL, block=8)[:-50], 4, "too early", "again"),
    Bad("bad_line_far_down", b">a\n" + b"ACGT\n" * 500_000 + b"ACJT\n", 500_002, "protein", "DNA"),
    Bad("crlf_line_number", b">a\r\n" + b"ACGT\r\n" * 300_000 + b"AC!T\r\n", 300_002, "is not a base, column 3", "N"),
    Bad("cr_line_number", b">a\r" + b"ACGT\r" * 300_000 + b"AC!T\r", 300_002, "is not a base, column 3", "N"),
]


def streamed(path: Path, piece: int = 3) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    for part in stream_fasta(path, piece):
        assert part.offset == len(records.get(part.record, b""))
        assert len(part.sequence) == piece or part.is_last
        records[part.record] = records.get(part.record, b"") + part.sequence.tobytes()
    return records


def test_there_are_enough_files() -> None:
    assert len({case.name for case in GOOD + BAD}) == len(GOOD) + len(BAD) >= 110


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c.name)
def test_read_with_exactly_the_expected_bases(case: Good, tmp_path: Path) -> None:
    path = tmp_path / "genome.fa"
    path.write_bytes(case.content)
    assert streamed(path) == case.records

    genome = Genome.open(path)
    assert [(r.name, r.length) for r in genome.records] == [(n, len(s)) for n, s in case.records.items()]
    for name, sequence in case.records.items():
        for start in range(len(sequence)):
            for end in range(start, len(sequence) + 1):
                assert genome.fetch(name, start, end).tobytes() == sequence[start:end]


@pytest.mark.parametrize("read", [lambda path: list(stream_fasta(path)), Genome.open], ids=["stream", "random"])
@pytest.mark.parametrize("case", BAD, ids=lambda c: c.name)
def test_refused_with_file_line_and_mend(case: Bad, read, tmp_path: Path) -> None:
    path = tmp_path / "bad.fa"
    path.write_bytes(case.content)
    with pytest.raises(UserError) as caught:
        read(path)
    error = caught.value
    assert (error.path, error.line) == (path, case.line)
    assert case.problem in error.problem
    assert error.fix is not None
    assert case.fix in error.fix
    assert str(error).startswith(f"{path}, line {case.line:,}")
    assert all(len(line) < 250 for line in str(error).splitlines())
    assert not list(Path(os.environ["SEQMAMBA_CACHE"]).glob("bad.fa-*/*bases*"))


def test_missing_file(tmp_path: Path) -> None:
    for read in (Genome.open, lambda p: next(stream_fasta(p))):
        with pytest.raises(UserError, match=r"nowhere\.fa: there is no such file") as caught:
            read(tmp_path / "nowhere.fa")
        assert "spelling" in str(caught.value)


def test_folder(tmp_path: Path) -> None:
    for read in (Genome.open, lambda p: next(stream_fasta(p))):
        with pytest.raises(UserError, match="folder, not a file"):
            read(tmp_path)


def test_file_used_as_folder(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_bytes(SMALL)
    with pytest.raises(UserError, match="no such file"):
        Genome.open(tmp_path / "a.fa" / "b.fa")


def test_unreadable_file(unprivileged: Path) -> None:
    path = unprivileged / "open" / "a.fa"
    path.write_bytes(SMALL)
    path.chmod(0)
    with pytest.raises(UserError, match=r"may not be read[\s\S]*chmod"):
        Genome.open(path)


def test_pipe_is_streamed_but_not_opened_at_random(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, SMALL)
    os.close(write_end)
    path = Path(f"/dev/fd/{read_end}")
    with pytest.raises(UserError, match="pipe"):
        Genome.open(path)
    assert streamed(path) == READ
    os.close(read_end)


def test_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.fa.gz").write_bytes(gzip.compress(SMALL))
    with (tmp_path / "a.fa.gz").open("r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert {p.record: p.sequence.tobytes() for p in stream_fasta("-")} == READ


def test_repeated_ids_are_read_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">a\nAC\n>a\nGG\n")
    pieces = [(p.index, p.record, p.line, p.sequence.tobytes()) for p in stream_fasta(path, unique_ids=False)]
    assert pieces == [(0, "a", 1, b"AC"), (1, "a", 3, b"GG")]


def test_case_is_kept_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">a the rest\nAcgN\nu\n")
    (piece,) = stream_fasta(path, upper=False)
    assert (piece.description, piece.sequence.tobytes()) == ("the rest", b"AcgNt")
