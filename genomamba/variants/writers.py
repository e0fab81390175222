"""Writing scored records: VCF with added INFO fields, compressed and indexed where the name asks for it, or TSV.

Records keep their order and, in VCF, every field but INFO is what it was, byte for byte; INFO gains fields at its end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Protocol, runtime_checkable

from genomamba.variants.scores import AlleleScores
from genomamba.variants.sites import REASONS, Variant
from mamba_data_prep.atomic import atomic_write, clean_orphans
from mamba_data_prep.genomes.tabix import BgzipWriter, TabixIndex
from mamba_data_prep.genomes.vcf import VcfHeader, VcfRecord

FORMATS: Final = (".vcf.gz", ".vcf", ".tsv", ".tsv.gz")
_LLR = "log-likelihood of the allele minus that of the reference, bits"
_FIELDS: Final = {
    "MAMBA_LLR": f"{_LLR}, mean of both strands",
    "MAMBA_LLR_FORWARD": f"{_LLR}, on the forward strand",
    "MAMBA_LLR_REVERSE": f"{_LLR}, on the reverse strand",
    "MAMBA_COSINE": "1 - cosine of the vectors of allele and reference after the last layer",
    "MAMBA_L2": "Euclidean distance of the vectors of allele and reference after the last layer",
}
_REASON: Final = "MAMBA_REASON"
_TABLE: Final = "chrom pos id ref alt llr llr_forward llr_reverse cosine_distance l2_distance reason"
_OWN = re.compile(b"##INFO=<ID=(%s)," % "|".join([*_FIELDS, _REASON]).encode())
_END = re.compile(rb"(?:^|;)END=(\d{1,15})(?:;|$)")
_Scored = Sequence[AlleleScores | None]


@runtime_checkable
class VariantWriter(Protocol):
    """Takes a header, then records in order."""

    def begin(self, header: VcfHeader) -> None:
        """Writes what stands before the records."""
        ...

    def write(self, variant: Variant, scores: _Scored) -> None:
        """Writes a record."""
        ...


@runtime_checkable
class _Sink(Protocol):
    """Where lines go; those of a record are told of it."""

    def write(self, data: bytes, record: VcfRecord | None = None) -> None: ...


def output_format(path: Path) -> str:
    """The ending of `FORMATS` that a checked name has; that of `-`, standard output, is `.vcf`."""
    return ".vcf" if str(path) == "-" else next(e for e in FORMATS if path.name.lower().endswith(e))


@contextmanager
def variant_writer(path: Path, about: str, notes: list[str]) -> Iterator[VariantWriter]:
    """A writer whose file appears under its name only when the block ends without an error, its index after it.

    Args:
        path: the file; `-` is standard output.
        about: model and window, for the header.
        notes: gains a line where there can be no index.
    """
    ending = output_format(path)
    kind = _Vcf if ".vcf" in ending else _Tsv
    if str(path) == "-":
        yield kind(_Plain(sys.stdout.buffer), about)
        sys.stdout.buffer.flush()
        return
    clean_orphans(path.parent)
    place = path.with_name(f"{path.name}.tbi")
    index = TabixIndex() if ending == ".vcf.gz" else None
    with atomic_write(path, "wb") as stream:
        if ending.endswith(".gz"):
            squeezed = BgzipWriter(stream)
            yield kind(_Plain(squeezed) if index is None else _Indexed(squeezed, index), about)
            squeezed.close()
            place.unlink(missing_ok=True)  # that of a file which is replaced now
        else:
            yield kind(_Plain(stream), about)
    if index is None:
        return
    if index.problem is not None:
        notes.append(f"{path.name} has no tabix index: {index.problem}; bcftools sort puts that right")
        return
    with atomic_write(place, "wb") as stream:
        index.write(stream)


class _Plain:
    def __init__(self, stream: IO[bytes] | BgzipWriter) -> None:
        self._stream = stream

    def write(self, data: bytes, record: VcfRecord | None = None) -> None:
        self._stream.write(data)


class _Indexed:
    def __init__(self, stream: BgzipWriter, index: TabixIndex) -> None:
        self._stream, self._index = stream, index

    def write(self, data: bytes, record: VcfRecord | None = None) -> None:
        first = self._stream.tell()
        self._stream.write(data)
        if record is not None:
            chrom, _ = data.split(b"\t", 1)
            start = record.position - 1
            told = _END.search(record.text.split(b"\t", 8)[7])
            end = int(told[1]) if told and int(told[1]) > start else start + len(record.reference)
            self._index.add(chrom, start, end, first, self._stream.tell())


class _Vcf:
    def __init__(self, sink: _Sink, about: str) -> None:
        self._sink, self._about = sink, about
        self._end = b"\n"

    def begin(self, header: VcfHeader) -> None:
        self._end = header.end
        reasons = ", ".join(REASONS)
        described = {name: ("Float", f"{words}; {self._about}") for name, words in _FIELDS.items()}
        described[_REASON] = ("String", f"Why the allele is not scored: {reasons}")
        own = [
            f'##INFO=<ID={name},Number=A,Type={kind},Description="{words}">'.encode()
            for name, (kind, words) in described.items()
        ]
        *others, columns = header.lines
        kept = [line for line in others if not _OWN.match(line)]
        self._sink.write(b"".join(line + self._end for line in [*kept, *own, columns]))

    def write(self, variant: Variant, scores: _Scored) -> None:
        fields = variant.record.text.split(b"\t", 8)
        old = [part for part in fields[7].split(b";") if part.partition(b"=")[0] not in _OWN_NAMES and part != b"."]
        fields[7] = b";".join([*old, *_info(variant, scores)]) or b"."
        self._sink.write(b"\t".join(fields) + self._end, variant.record)


_OWN_NAMES = {name.encode() for name in (*_FIELDS, _REASON)}


class _Tsv:
    def __init__(self, sink: _Sink, about: str) -> None:
        self._sink = sink

    def begin(self, header: VcfHeader) -> None:
        self._sink.write("\t".join(_TABLE.split()).encode() + b"\n")

    def write(self, variant: Variant, scores: _Scored) -> None:
        record = variant.record
        head = [record.chrom, str(record.position), record.identifier, record.reference]
        alleles = list(zip(record.alternatives, scores, variant.reasons, strict=True))
        for allele, score, reason in alleles or [(".", None, "no_alternative")]:
            row = "\t".join([*head, allele, *_numbers(score, ""), reason or ""])
            self._sink.write(row.encode("utf-8", "surrogateescape") + b"\n")


def _info(variant: Variant, scores: _Scored) -> list[bytes]:
    """The fields that INFO gains; none of a number where no allele has one."""
    found: list[str] = []
    if any(score is not None for score in scores):
        columns = zip(*(_numbers(score, ".") for score in scores), strict=True)
        found = [f"{name}={','.join(values)}" for name, values in zip(_FIELDS, columns, strict=True)]
    if any(variant.reasons):
        found.append(f"{_REASON}={','.join(reason or '.' for reason in variant.reasons)}")
    return [field.encode() for field in found]


def _numbers(score: AlleleScores | None, missing: str) -> list[str]:
    """The scores of an allele in the order of the fields, six decimals."""
    if score is None:
        return [missing] * len(_FIELDS)
    values: list[Any] = [score.ratio, score.forward, score.reverse, score.cosine, score.l2]
    return [f"{round(value, 6) + 0.0:.6f}" for value in values]  # adding zero takes the sign from -0
