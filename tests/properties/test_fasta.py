"""Readers against a naive parser, on random files of every shape; cuts, pieces and positions never change a base."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.fasta import FastaScanner, Header, stream_fasta
from mamba_data_prep.genomes.genome import Genome

LETTERS = "ACGTacgtNnRYSWKMBDHVryswkmbdhvUu"


def random_file(rng: random.Random) -> bytes:
    """A small FASTA file; one in four is broken somewhere."""
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    lines = []
    for number in range(rng.randint(1, 4)):
        name = f"r{number}" if rng.random() < 0.97 else "r0"
        lines.append(f">{name}" + rng.choice(["", " text", "\ttext >x", "  two  words "]))
        width, regular = rng.randint(1, 12), rng.random() < 0.6
        sequence = "".join(rng.choices(LETTERS, k=rng.randint(0 if rng.random() < 0.1 else 1, 60)))
        while sequence:
            take = width if regular else rng.randint(0, width)
            lines.append(sequence[:take])
            sequence = sequence[take:]
            if not regular and rng.random() < 0.2:
                lines.append(rng.choice(["", " ", ";comment", "\t", " AC"]))
    text = end.join(lines) + rng.choice(["", end, end, end * 2])
    if rng.random() < 0.25:
        place = rng.randint(0, len(text))
        text = text[:place] + rng.choice(["-", "*", "J", "\0", ">", "5", "\n>", "é", "\r", "\n", " "]) + text[place:]
    return text.encode()


def naive(content: bytes) -> dict[str, str] | int:
    """The records, or the line of the first mistake."""
    records: dict[str, str] = {}
    headers: dict[str, int] = {}
    name = None
    lines = content.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith(">"):
            text = line[1:].replace("\t", " ").strip()
            name = text.split(" ")[0]
            if not name or name in records or not text.isprintable():
                return number
            records[name], headers[name] = "", number
        elif not line.startswith(";"):
            bases = line.replace(" ", "").replace("\t", "").upper().replace("U", "T")
            if bases and (name is None or bases.strip("ACGTRYSWKMBDHVN")):
                return number
            if name is not None:
                records[name] += bases
    if name is None:
        return len(lines)
    return records if any(records.values()) else headers[name]


def read_stream(path: Path, piece: int) -> dict[str, str] | int:
    records: dict[str, str] = {}
    try:
        for part in stream_fasta(path, piece):
            records[part.record] = records.get(part.record, "") + part.sequence.tobytes().decode()
    except UserError as error:
        return error.line or 0
    return records


def read_random(path: Path) -> dict[str, str] | int:
    try:
        genome = Genome.open(path, path.parent / "cache")
    except UserError as error:
        return error.line or 0
    found = {r.name: genome.fetch(r.name, 0, r.length).tobytes().decode() for r in genome.records}
    for name, sequence in found.items():
        middle = len(sequence) // 2
        assert genome.fetch(name, middle, len(sequence)).tobytes().decode() == sequence[middle:]
    genome.close()
    return found


def disagreements(folder: Path, first: int, count: int) -> list[bytes]:
    found = []
    path = folder / "f.fa"
    for seed in range(first, first + count):
        rng = random.Random(seed)
        content = random_file(rng)
        compressed = gzip.compress(content) if rng.random() < 0.3 else content
        path.unlink(missing_ok=True)
        path.write_bytes(compressed)
        expected = naive(content)
        if read_stream(path, rng.randint(1, 70)) != expected or read_random(path) != expected:
            found.append(content)
    return found


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of indexes are flushed to the disk otherwise."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_naive_parser_knows_mistakes() -> None:
    assert naive(b">a\nAC\n>b x\ngu\n") == {"a": "AC", "b": "GT"}
    assert [naive(b) for b in (b">a\nA-C", b">a\n>b\n", b"A\n>a\nC", b">a\nA\n>a\nC", b"\n\n")] == [2, 2, 1, 3, 3]


def test_readers_agree_with_a_naive_parser(quick_folder: Path) -> None:
    assert disagreements(quick_folder, 0, 500) == []


@pytest.mark.slow
def test_readers_agree_with_a_naive_parser_ten_thousand_times(quick_folder: Path) -> None:
    assert disagreements(quick_folder, 1_000, 10_000) == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 200), max_size=8))
def test_blocks_may_be_cut_anywhere(seed: int, cuts: list[int]) -> None:
    content = random_file(random.Random(seed))
    expected = naive(content)
    edges = [0, *sorted(min(c, len(content)) for c in cuts), len(content)]
    scanner = FastaScanner("f.fa")
    records: dict[str, str] = {}
    name, mistake = "", None
    try:
        events = [e for a, b in itertools.pairwise(edges) for e in scanner.feed(content[a:b])]
        for event in [*events, *scanner.finish()]:
            if isinstance(event, Header):
                name = event.record
                records[name] = ""
            else:
                records[name] += event.decode()
    except UserError as error:
        mistake = error.line
    assert (records if mistake is None else mistake) == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(list(b"ACGTRYSWKMBDHVN")), max_size=50))
def test_reverse_complement_is_its_own_inverse(letters: list[int]) -> None:
    bases = np.array(letters, dtype=np.uint8)
    other = reverse_complement(bases)
    assert np.array_equal(reverse_complement(other), bases)
    assert bytes(other) == bytes(bases)[::-1].translate(bytes.maketrans(b"ACGTRYSWKMBDHVN", b"TGCAYRSWMKVHDBN"))
