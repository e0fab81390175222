"""What can be wrong with a FASTA file, said to a person: the problem, the place, what was found, the mend."""

from __future__ import annotations

from pathlib import Path

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import INVALID
from mamba_data_prep.genomes.header import Header

_BASES = "A C G T U, the IUPAC codes R Y S W K M B D H V N, in either case"
_FASTA = "FASTA: a line '>NAME', then lines of DNA"

_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"<", "this is a web page or XML, not FASTA", "download the file itself, not the page that shows it"),
    (b"{", "this is JSON, not FASTA", "give the FASTA file"),
    (b"##gff", "this is GFF, not FASTA", "give the FASTA file that the annotation belongs to"),
    (b"##fileformat=VCF", "this is VCF, not FASTA", "give the FASTA file that the variants belong to"),
    (b"BAM\x01", "this is BAM, not FASTA", "convert it: samtools fasta in.bam > out.fa"),
    (b"CLUSTAL", "this is a Clustal alignment, not FASTA", "convert it to FASTA without gaps"),
    (b"#NEXUS", "this is NEXUS, not FASTA", "convert it to FASTA without gaps"),
)


def no_record(path: str | Path, line: int) -> UserError:
    """Says that the file ended and no header was seen."""
    return UserError(
        "this file holds no record", path=path, line=line, accepted=_FASTA, fix="check that the download is complete"
    )


def no_base(path: str | Path, last: Header) -> UserError:
    """Says that the file ended, and none of its records had a base."""
    fix = "check that the download is complete; the bases stand on the lines below each header"
    return UserError("no record of this file has bases", path=path, line=last.line, record=last.record, fix=fix)


def not_fasta(path: str | Path, line: int, text: bytes) -> UserError:
    """Says that something stands before the first header."""
    start = text.lstrip()
    problem, fix = "text stands before the first header", "begin the file with a line '>NAME'"
    if start.startswith(b">"):
        problem, fix = "this header does not begin its line", "remove the blanks before '>'"
    elif b"\0" in start or (start and start[0] < 32):
        problem, fix = "this is a binary file, not FASTA", "give the FASTA file, as text, gzip or bgzip"
    for magic, what, mend in _KINDS:
        if start.startswith(magic):
            problem, fix = what, mend
    return UserError(problem, path=path, line=line, found=_shown(text), accepted=_FASTA, fix=fix)


def broken_header(path: str | Path, line: int, text: bytes, problem: str) -> UserError:
    """Says that a header cannot be understood."""
    mends = {
        "control": "remove them: a header is one line of plain text, >NAME description",
        "longer": "check that the file is FASTA and has line ends",
    }
    fix = next((mend for word, mend in mends.items() if word in problem), "write an id after '>': >NAME description")
    return UserError(problem, path=path, line=line, found=_shown(b">" + text), fix=fix)


def not_a_base(path: str | Path, line: int, record: str | None, text: bytes, table: bytes) -> UserError:
    """Says that a sequence line holds a byte that is no base; `record` is the id of its record."""
    column = next(i for i, byte in enumerate(text) if table[byte] == INVALID and byte not in b" \t\n")
    problem, fix = _why(text, text[column])
    return UserError(
        f"{problem}, column {column + 1:,}",
        path=path,
        line=line,
        record=record,
        found=_shown(text[max(0, column - 20) : column + 20]),
        accepted=_BASES,
        fix=fix,
    )


def _why(line: bytes, byte: int) -> tuple[str, str]:
    letter = chr(byte).upper()
    if byte == 0:
        return "a NUL byte", "the file is damaged or not text; download or copy it again"
    if byte >= 128:
        return "a byte that is not ASCII", "remove it; sequences are plain ASCII"
    if letter in "-.~":
        return (
            f"an alignment gap ({chr(byte)!r})",
            "remove the gaps (seqkit seq -g), or write N where bases are unknown",
        )
    if letter == ">":
        return "'>' inside a sequence line", "begin every header on a line of its own, without blanks before it"
    if letter == "X":
        return "'X', a masked base or an amino acid", "write N for masked bases; protein cannot be read"
    if letter == "*" or letter in "EFIJLOPQZ":
        return f"{chr(byte)!r} is an amino acid's letter: this looks like protein", "give the DNA sequence"
    if line.startswith((b"+", b"@")):
        return (
            f"{chr(byte)!r} is not a base: this looks like FASTQ",
            "convert it: seqtk seq -A reads.fastq > reads.fasta",
        )
    if letter.isdigit():
        return "a digit", "remove line numbers and counts (GenBank has them; FASTA has not)"
    return f"{chr(byte)!a} is not a base", "remove it, or write N where the base is unknown"


def _shown(text: bytes) -> str:
    return text.rstrip(b"\r\n").decode("ascii", "backslashreplace")
