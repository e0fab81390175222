"""Gives a reader many mutations of one small valid file, and reports as JSON what became of them.

    python mutation_storm.py FOLDER READER COUNT SEED

Each mutation may be read or refused by a `UserError` that names the file and the place. Anything else is a failure, and
so is one that takes more than five seconds of the processor or 500 MB. The bytes of a failure are left in FOLDER.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import signal
import struct
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mutations import mutated

from mamba_data_prep.errors import UserError

_PLACE = re.compile(r"line \d|record '|position \d|column \d")
SECONDS, MEGABYTES = 5.0, 500
_DNA = "ACGTNRYacgtnACGTACGTTTGACCA" * 4


class TooSlow(BaseException):
    """A reader took longer than it may."""


class Reader(NamedTuple):
    """How a file is made and read: its name's ending, its text, what compresses it, and the reading."""

    ending: str
    text: bytes
    pack: Callable[[bytes], bytes]
    read: Callable[[Path], object]


def bgzip(data: bytes) -> bytes:
    """Blocks of 40 bytes, as small as makes every place of the file a border now and then."""
    blocks = [_bgzip_block(data[i : i + 40]) for i in range(0, len(data), 40)]
    return b"".join([*blocks, _bgzip_block(b"")])


def _bgzip_block(data: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = deflate.compress(data) + deflate.flush()
    extra = b"BC\x02\x00" + struct.pack("<H", len(body) + 25)
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\x00" + extra
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


def workbook(data: bytes) -> bytes:
    """An Excel file whose first sheet has the text's lines and fields."""
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook()
    sheet = book.worksheets[0]
    for line in data.decode("latin-1").split("\n")[:500]:
        sheet.append([ILLEGAL_CHARACTERS_RE.sub("", cell)[:32_000] for cell in line.split(",")[:500]])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet(data: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [line.split(",") for line in data.decode("latin-1").split("\n") if line]
    width = len(rows[0]) if rows else 1
    names = [f"{name}{i}" if i > 1 else name for i, name in enumerate(rows[0] if rows else ["ds"])]
    columns = [[row[i] if i < len(row) else None for row in rows[1:]] for i in range(width)]
    stream = io.BytesIO()
    pq.write_table(pa.table(dict(zip(names, columns, strict=False)) or {"a": [1]}), stream)
    return stream.getvalue()


def plain(data: bytes) -> bytes:
    return data


def _fasta(path: Path) -> None:
    from mamba_data_prep.genomes.fasta import stream_fasta
    from mamba_data_prep.genomes.genome import Genome
    from mamba_data_prep.genomes.windows import tile

    streamed = None
    try:
        streamed = sum(len(piece.sequence) for piece in stream_fasta(path, 50))
    except UserError as error:
        refusal = error
    try:
        genome = Genome.open(path)
    except UserError:
        if streamed is not None:
            raise AssertionError("it is streamed, and not opened") from None
        raise
    if streamed is None:
        raise AssertionError(f"it is opened, and not streamed: {refusal}")
    assert streamed == int(genome.lengths.sum())
    for number, record in enumerate(genome.records):
        assert len(genome.fetch(number, 0, record.length)) == record.length
    tile(genome, 8)
    genome.close()


def _bed(path: Path) -> None:
    from mamba_data_prep.genomes.intervals import read_bed, within

    within(_genome(path.parent), read_bed(path))


def _tss(path: Path) -> None:
    from mamba_data_prep.genomes.gtf import read_tss

    read_tss(path, _genome(path.parent))


def _genome(folder: Path) -> Any:
    from mamba_data_prep.genomes.genome import Genome

    path = folder / "whole.fa"
    if not path.exists():
        path.write_text(f">chr1\n{_DNA * 30}\n>chr2\n{_DNA * 30}\n")
    return Genome.open(path)


def _table(path: Path) -> None:
    from genomamba.classifier.config import FinetuneData
    from genomamba.classifier.tasks.labelled_tables import read_table
    from genomamba.classifier.tasks.tasks import table_data

    read_table(path)
    table_data([path], FinetuneData())


def _rules(path: Path) -> None:
    from mamba_data_prep.series import ReadOptions

    ReadOptions.load(path)


def _dna_config(path: Path) -> None:
    from genomamba.config import load_config

    load_config(str(path))


def _series_config(path: Path) -> None:
    from tsmamba.config import load_config

    load_config(str(path))


def _series(path: Path) -> None:
    from mamba_data_prep.series import read_series

    read_series(path)


def _doctor(path: Path) -> None:
    from tsmamba.commands.doctor import run_doctor

    run_doctor(csv=path, reading={"settings": ()}, out=path.with_name("clean.csv"), overwrite=True)


def _flat_file(kind: str) -> bytes:
    from Bio import SeqIO
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

    molecule = {"molecule_type": "DNA"}
    records = [
        SeqRecord(Seq(_DNA[i:]), id=f"AB00000{i}.1", name=f"AB00000{i}", description="made up", annotations=molecule)
        for i in range(3)
    ]  # fmt: skip
    stream = io.StringIO()
    SeqIO.write(records, stream, kind)
    return stream.getvalue().encode()


def _labelled() -> bytes:
    rng = random.Random(0)
    rows = [f"{''.join(rng.choices('ACGT', k=20))},{'ab'[i % 2]},{i}" for i in range(30)]
    return ("sequence,label,note\n" + "\n".join(rows) + "\n").encode()


_FASTA = f">one first\n{_DNA}\n{_DNA[:50]}\n>two\n{_DNA[:90]}\n>three\n\n>four\n{_DNA[:10]}\n".encode()
_BED = b"track name=x\nchr1\t10\t60\ttrain\t0\t+\nchr1\t100\t200\tvalid\t0\t-\n1\t300\t400\ttest\nchr2\t0\t50\n"
_GTF = (
    b"##gtf\n"
    b'chr1\thavana\tgene\t100\t200\t.\t+\t.\tgene_id "A"; gene_name "A1";\n'
    b'chr1\thavana\ttranscript\t100\t200\t.\t+\t.\tgene_id "A"; transcript_id "A.1";\n'
    b'chr1\thavana\texon\t100\t150\t.\t+\t.\tgene_id "A";\n'
    b'chr2\thavana\ttranscript\t40\t90\t.\t-\t.\tgene_id "B";\n'
)
_SERIES = b"ds,shop,y,promo\n" + b"".join(
    b"2024-01-%02d,%s,%d.5,%d\n" % (day, shop, day * 3 % 17, day % 2)
    for shop in (b"north", b"south")
    for day in range(1, 29)
)
_RULES = (
    b"time: [ds]\nid: [shop]\ntarget: [y]\nfuture_covariates: [promo]\nfrequency: D\nmissing: [NA, '-']\n"
    b"dayfirst: false\n"
)


def _preset(application: str, name: str) -> bytes:
    from importlib.resources import files

    return (files("mamba_configs") / application / f"{name}.yaml").read_bytes()


READERS: dict[str, Callable[[], Reader]] = {
    "fasta": lambda: Reader(".fa", _FASTA, plain, _fasta),
    "fasta gzip": lambda: Reader(".fa.gz", _FASTA, gzip.compress, _fasta),
    "fasta bgzip": lambda: Reader(".fa.gz", _FASTA, bgzip, _fasta),
    "genbank": lambda: Reader(".gb", _flat_file("genbank"), plain, _fasta),
    "embl": lambda: Reader(".embl", _flat_file("embl"), plain, _fasta),
    "bed": lambda: Reader(".bed", _BED, plain, _bed),
    "start sites bed": lambda: Reader(".bed", b"chr1\t10\t11\ta\t0\t+\nchr2\t50\t51\tb\t0\t-\n", plain, _tss),
    "gtf": lambda: Reader(".gtf", _GTF, plain, _tss),
    "gtf gzip": lambda: Reader(".gtf.gz", _GTF, gzip.compress, _tss),
    "gff3": lambda: Reader(".gff3", _GTF.replace(b'gene_id "', b"ID=").replace(b'";', b";"), plain, _tss),
    "table csv": lambda: Reader(".csv", _labelled(), plain, _table),
    "table tsv gzip": lambda: Reader(".tsv.gz", _labelled().replace(b",", b"\t"), gzip.compress, _table),
    "table xlsx": lambda: Reader(".xlsx", _labelled(), workbook, _table),
    "rules yaml": lambda: Reader(".yaml", _RULES, plain, _rules),
    "dna config yaml": lambda: Reader(".yaml", _preset("genomamba", "genomamba-tiny"), plain, _dna_config),
    "series config yaml": lambda: Reader(".yaml", _preset("tsmamba", "auto"), plain, _series_config),
    "series csv": lambda: Reader(".csv", _SERIES, plain, _series),
    "series csv gzip": lambda: Reader(".csv.gz", _SERIES, gzip.compress, _series),
    "series parquet": lambda: Reader(".parquet", _SERIES, parquet, _series),
    "doctor": lambda: Reader(".csv", _SERIES, plain, _doctor),
}


def _peak() -> tuple[int, int]:
    """Mebibytes resident now, and at most since `_forget_peak`."""
    with open("/proc/self/status") as status:
        found = dict(line.split(":", 1) for line in status)
    return int(found["VmRSS"].split()[0]) >> 10, int(found["VmHWM"].split()[0]) >> 10


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _stop(number: int, frame: object) -> None:
    raise TooSlow


def outcome(reader: Reader, path: Path) -> tuple[str, str]:
    """ "read", "refused" or "failed", and why."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        reader.read(path)
    except UserError as error:
        if path.name not in str(error) and "whole.fa" not in str(error):
            return "failed", f"the refusal does not name the file: {error}"
        return "refused", str(error)
    except TooSlow:
        return "failed", "too slow: " + traceback.format_exc(limit=-4)
    except Exception:
        return "failed", traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read", ""


def content(reader: Reader, rng: random.Random) -> bytes:
    """A mutation of the text, or of what it is compressed to."""
    if reader.pack is not plain and rng.random() < 0.5:
        return mutated(reader.pack(reader.text), rng)
    return reader.pack(mutated(reader.text, rng))


def main(folder: Path, name: str, count: int, seed: int) -> dict[str, Any]:
    os.environ["SEQMAMBA_CACHE"] = str(folder / "cache")
    rng, reader = random.Random(seed), READERS[name]()
    signal.signal(signal.SIGPROF, _stop)
    report: dict[str, Any] = {"reader": name, "read": 0, "refused": 0, "failed": 0, "slowest": 0.0, "most_megabytes": 0}
    failures: list[str] = []
    placeless: dict[str, str] = {}
    path = folder / f"mutated{reader.ending}"
    path.write_bytes(reader.pack(reader.text))
    first, why = outcome(reader, path)
    if first != "read":
        return {**report, "failed": 1, "failures": [f"the valid file: {why}"]}
    for number in range(count):
        data = content(reader, rng)
        path.write_bytes(data)
        _forget_peak()
        before, began = _peak()[0], time.process_time()
        kind, why = outcome(reader, path)
        seconds, grown = time.process_time() - began, _peak()[1] - before
        if grown > MEGABYTES:
            kind, why = "failed", f"it took {grown} MB"
        report[kind] += 1
        if kind == "refused" and not _PLACE.search(why):
            placeless.setdefault(why.partition("\n")[0].replace(str(path), "FILE")[:150], why)
        report["slowest"] = max(report["slowest"], round(seconds, 2))
        report["most_megabytes"] = max(report["most_megabytes"], grown)
        if kind == "failed":
            failures.append(f"mutation {number}: {why}")
            (folder / f"failed-{number}{reader.ending}").write_bytes(data)
    return {**report, "failures": failures, "placeless": list(placeless)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
