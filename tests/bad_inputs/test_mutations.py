"""Whatever becomes of a file, its reader reads it or refuses it by name and place, soon and in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
READERS = (
    "fasta", "fasta gzip", "fasta bgzip", "genbank", "embl", "bed", "start sites bed", "gtf", "gtf gzip", "gff3",
    "table csv", "table tsv gzip", "table xlsx", "rules yaml", "dna config yaml", "series config yaml", "series csv",
    "series csv gzip", "series parquet", "doctor",
)  # fmt: skip
WHOLE_FILE = (
    "holds no interval", "no transcript and no gene", "mapping of keys to values", "nearly as many labels",
    "a header and no rows", "split holds no example", "no record of this", "single class", "not an Excel file",
)  # fmt: skip
"""What is wrong with a file as a whole, so that no line can be named."""


def storm(folder: Path, reader: str, count: int, seed: int, program: Path = HERE / "mutation_storm.py") -> dict:
    command = [sys.executable, program, folder, reader, str(count), str(seed)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(("count", "seed"), [(60, 1), pytest.param(2000, 0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", READERS)
def test_a_mutated_file_is_read_or_refused(reader: str, count: int, seed: int, tmp_path: Path) -> None:
    report = storm(tmp_path, reader, count, seed)
    assert report["failed"] == 0, "\n".join(report["failures"])
    assert report["read"] + report["refused"] == count
    assert report["read"] >= 0.03 * count, "mutations that all break the file say little of how it is read"
    assert report["refused"] >= 0.1 * count
    assert report["slowest"] < 5
    assert report["most_megabytes"] < 500
    nowhere = [one for one in report["placeless"] if not any(words in one for words in WHOLE_FILE)]
    assert nowhere == []


def test_the_storm_knows_all_readers() -> None:
    sys.path.insert(0, str(HERE))
    try:
        import mutation_storm
    finally:
        sys.path.remove(str(HERE))
    assert tuple(mutation_storm.READERS) == READERS


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("raise ValueError('a bug')", "a bug"),
        ("while True: pass", "too slow"),
        ("bytearray(600 << 20)", "it took"),
        ("raise UserError('is broken')", "does not name the file"),
    ],
)
def test_the_storm_sees_what_it_looks_for(body: str, word: str, tmp_path: Path) -> None:
    text = (HERE / "mutation_storm.py").read_text()
    assert "def _bed(path: Path) -> None:\n" in text
    only = "\n    if path.read_bytes() == _BED: return\n    "
    text = text.replace("def _bed(path: Path) -> None:\n", f"def _bed(path: Path) -> None:{only}{body}\n")
    text = text.replace("SECONDS, MEGABYTES = 5.0", "SECONDS, MEGABYTES = 0.5")
    program = tmp_path / "broken_storm.py"
    program.write_text(text)
    (tmp_path / "mutations.py").write_text((HERE / "mutations.py").read_text())
    report = storm(tmp_path, "bed", 3, 1, program)
    assert report["failed"] > 0
    assert word in report["failures"][0]
