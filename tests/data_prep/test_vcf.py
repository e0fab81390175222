"""VCF files read record by record and byte for byte, and bgzip with its index written."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.tabix import BgzipWriter, TabixIndex
from mamba_data_prep.genomes.vcf import VcfRecord, read_vcf

HEAD = b"##fileformat=VCFv4.2\n##contig=<ID=1,assembly=x,length=1000>\n##contig=<length=7,ID=2>\n##contig=<ID=3>\n"
COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tme\n"
ONE = b"1\t5\trs1\tA\tC,<DEL>,*\t.\tPASS\tAC=1;END=9\tGT\t0|1\n"
TWO = b"2\t0\t.\tacgT\t.\t3.5\t.\t.\tGT\t.\n"


def read(text: bytes, folder: Path, name: str = "a.vcf") -> tuple[tuple[bytes, ...], list[VcfRecord]]:
    path = folder / name
    path.write_bytes(text)
    header, records = read_vcf(path)
    assert header.contigs == {"1": 1000, "2": 7, "3": 0}
    return header.lines, list(records)


def test_a_record_is_kept_as_it_is_written_and_says_what_it_says(tmp_path: Path) -> None:
    lines, (one, two) = read(HEAD + COLUMNS + ONE + TWO, tmp_path)
    assert b"".join(line + b"\n" for line in lines) == HEAD + COLUMNS
    assert one == VcfRecord(6, ONE[:-1], "1", 5, "rs1", "A", ("C", "<DEL>", "*"))
    assert two == VcfRecord(7, TWO[:-1], "2", 0, ".", "acgT", ())
    assert str(one) == "1:5 A>C,<DEL>,*"


@pytest.mark.parametrize("how", ["gzip", "bgzip", "crlf", "no last newline", "empty lines", "small blocks"])
def test_however_it_is_stored_the_records_are_the_same(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HEAD + COLUMNS + ONE + TWO
    plain = read(text, tmp_path)
    if how == "gzip":
        text = gzip.compress(text)
    elif how == "bgzip":
        with (tmp_path / "a.gz").open("wb") as stream:
            writer = BgzipWriter(stream)
            writer.write(text)
            writer.close()
        text = (tmp_path / "a.gz").read_bytes()
    elif how == "crlf":
        text = text.replace(b"\n", b"\r\n")
        (tmp_path / "c.vcf").write_bytes(text)
        assert read_vcf(tmp_path / "c.vcf")[0].end == b"\r\n"
    elif how == "no last newline":
        text = text[:-1]
    elif how == "empty lines":
        text += b"\n\r\n"
    else:
        monkeypatch.setattr("mamba_data_prep.bytestream.BLOCK", 7)
    assert read(text, tmp_path, "b.vcf") == plain


def test_bgzip_is_gzip_of_bounded_blocks_whose_offsets_lead_back(tmp_path: Path) -> None:
    parts, offsets = [bytes([i % 251]) * (i * 37 % 9000) for i in range(200)], []
    with (tmp_path / "a.gz").open("wb") as stream:
        writer = BgzipWriter(stream)
        for part in parts:
            offsets.append(writer.tell())
            writer.write(part)
        writer.close()
    data, text = (tmp_path / "a.gz").read_bytes(), b"".join(parts)
    assert gzip.decompress(data) == text
    place = 0
    for part, offset in zip(parts, offsets, strict=True):
        block, within = offset >> 16, offset & 0xFFFF
        whole = gzip.GzipFile(fileobj=io.BytesIO(data[block:])).read(within + len(part))
        assert whole[within:] == part == text[place : place + len(part)]
        place += len(part)
    block, n_blocks = 0, 0
    while block < len(data):
        block += struct.unpack_from("<H", data, block + 16)[0] + 1
        n_blocks += 1
    assert (block, n_blocks) == (len(data), -(-len(text) // 0xFF00) + 1)


def regions(
    index: TabixIndex, path: Path
) -> tuple[dict[bytes, dict[int, list[tuple[int, int]]]], dict[bytes, list[int]]]:
    """What an index says, read as the specification says: chunks by bin, and linear offsets, by contig."""
    with path.open("wb") as stream:
        index.write(stream)
    data = gzip.decompress(path.read_bytes())
    magic, n, kind, seq, begin, end, meta, skip, size = struct.unpack_from("<4s8i", data)
    assert (magic, kind, seq, begin, end, meta, skip) == (b"TBI\1", 2, 1, 2, 0, ord("#"), 0)
    names = data[36 : 36 + size].split(b"\0")[:-1]
    assert len(names) == n
    place, bins, linear = 36 + size, {}, {}
    for name in names:
        (n_bins,) = struct.unpack_from("<i", data, place)
        place, bins[name] = place + 4, {}
        for _ in range(n_bins):
            number, n_chunks = struct.unpack_from("<Ii", data, place)
            chunks = struct.unpack_from(f"<{2 * n_chunks}Q", data, place + 8)
            bins[name][number] = list(zip(chunks[::2], chunks[1::2], strict=True))
            place += 8 + 16 * n_chunks
        (n_linear,) = struct.unpack_from("<i", data, place)
        linear[name] = list(struct.unpack_from(f"<{n_linear}Q", data, place + 4))
        place += 4 + 8 * n_linear
    assert data[place:] == bytes(8)
    return bins, linear


def test_the_index_leads_to_every_record(tmp_path: Path) -> None:
    index = TabixIndex()
    for first, (chrom, start, end) in enumerate(
        [(b"a", 10, 11), (b"a", 20, 40_000), (b"a", 50_000, 50_001), (b"b", 2**20, 2**20 + 1)]
    ):
        index.add(chrom, start, end, 100 + 10 * first, 110 + 10 * first)
    assert index.problem is None
    bins, linear = regions(index, tmp_path / "a.tbi")
    summary = {b"a": [(100, 130), (3, 0)], b"b": [(130, 140), (1, 0)]}
    assert {name: found.pop(37_450) for name, found in bins.items()} == summary
    assert bins == {b"a": {4681: [(100, 110)], 585: [(110, 120)], 4684: [(120, 130)]}, b"b": {4745: [(130, 140)]}}
    assert linear == {b"a": [100, 110, 110, 120], b"b": [130] * 65}


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([(b"a", 5), (b"a", 4)], "not sorted"),
        ([(b"a", 5), (b"b", 5), (b"a", 6)], "do not stand together"),
        ([(b"a", 2**29)], "reaches to base"),
    ],
)
def test_what_cannot_be_indexed_is_said(places: list[tuple[bytes, int]], words: str) -> None:
    index = TabixIndex()
    for chrom, start in places:
        index.add(chrom, start, start + 1, 0, 1)
    assert words in str(index.problem)


def test_the_index_is_read_by_htslib(tmp_path: Path) -> None:
    pysam = pytest.importorskip("pysam")
    path, index = tmp_path / "a.vcf.gz", TabixIndex()
    with path.open("wb") as stream:
        writer = BgzipWriter(stream)
        writer.write(b"##fileformat=VCFv4.2\n##contig=<ID=1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for position in range(1, 400_000, 37):
            first = writer.tell()
            writer.write(f"1\t{position}\t.\tA\tC\t.\t.\t.\n".encode())
            index.add(b"1", position - 1, position, first, writer.tell())
        writer.close()
    with (tmp_path / "a.vcf.gz.tbi").open("wb") as stream:
        index.write(stream)
    with pysam.VariantFile(str(path)) as file:
        for start in (0, 1, 16_384, 131_072, 399_000):
            found = [record.pos for record in file.fetch("1", start, start + 1000)]
            assert found == [p for p in range(1, 400_000, 37) if start < p <= start + 1000]


BAD = {
    "empty": (b"", "empty"),
    "fasta": (b">a\nACGT\n", "no VCF file"),
    "no_format_line": (COLUMNS + ONE, "no VCF file"),
    "byte_order_mark": (b"\xef\xbb\xbf" + HEAD + COLUMNS, "no VCF file"),
    "old_version": (b"##fileformat=VCFv3.3\n" + COLUMNS, "this version"),
    "no_columns": (HEAD + ONE, "line of the columns"),
    "blanks_in_columns": (HEAD + COLUMNS.replace(b"\t", b" ") + ONE, "line of the columns"),
    "header_alone": (HEAD, "header ends"),
    "blanks": (HEAD + COLUMNS + ONE.replace(b"\t", b" "), "wrong number of columns"),
    "cut_off": (HEAD + COLUMNS + ONE + TWO[:20], "wrong number of columns"),
    "too_many": (HEAD + COLUMNS + ONE[:-1] + b"\t0|0\n", "wrong number of columns"),
    "position": (HEAD + COLUMNS + ONE.replace(b"\t5\t", b"\t5.0\t"), "no whole number"),
    "negative": (HEAD + COLUMNS + ONE.replace(b"\t5\t", b"\t-5\t"), "no whole number"),
    "endless": (HEAD + COLUMNS + ONE.replace(b"\t5\t", b"\t" + b"5" * 5000 + b"\t"), "no whole number"),
    "no_reference": (HEAD + COLUMNS + ONE.replace(b"\tA\t", b"\t\t"), "is empty"),
    "broken_gzip": (gzip.compress(HEAD + COLUMNS + ONE)[:-9], "compressed data"),
    "bcf_without_end": (gzip.compress(b"BCF\2\2") + b"", "BCF"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_vcf_is_refused_with_file_and_mend(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    path = tmp_path / "bad.vcf"
    path.write_bytes(text)
    with pytest.raises(UserError, match=words) as caught:
        list(read_vcf(path)[1])
    assert str(path) in str(caught.value)
    assert caught.value.accepted or caught.value.fix or name == "bcf_without_end"


def test_bcf_without_pysam_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    path = tmp_path / "a.bcf"
    path.write_bytes(gzip.compress(b"BCF\2\2" + bytes(20)))
    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UserError, match="pip install pysam"):
        read_vcf(path)
