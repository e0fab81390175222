"""What a model has read in training: shares are those of a count base by base, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.reading import Overlap, RegionsRead, SequencesRead
from mamba_data_prep.genomes.windows import WindowTable, tile

SPANS = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), max_size=8)


def _rows(spans: list[tuple[int, int]]) -> np.ndarray:
    return np.array([(start, start + length) for start, length in spans], np.int64).reshape(-1, 2)


def _apart(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The bases that spans cover, as a mask and as stretches that lie apart."""
    mask = np.zeros(130, bool)
    for start, end in _rows(spans):
        mask[start:end] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return mask, edges.reshape(-1, 2).astype(np.int64)


@given(read=SPANS, windows=SPANS)
def test_the_overlap_is_what_counting_base_by_base_gives(
    read: list[tuple[int, int]], windows: list[tuple[int, int]]
) -> None:
    mask, stretches = _apart(read)
    rows = _rows(windows)
    found = RegionsRead("g.fa", "0" * 32, {"chr1": stretches}).overlap("chr1", rows[:, 0], rows[:, 1])
    counts = [int(mask[start:end].sum()) for start, end in rows]
    lengths = int((rows[:, 1] - rows[:, 0]).sum())
    assert found == Overlap(len(rows), sum(count > 0 for count in counts), lengths, sum(counts))


@given(one=SPANS, other=SPANS, windows=SPANS)
def test_what_either_has_read_is_the_union(
    one: list[tuple[int, int]], other: list[tuple[int, int]], windows: list[tuple[int, int]]
) -> None:
    made = [RegionsRead("g.fa", "0" * 32, {"chr1": _apart(spans)[1]}) for spans in (one, other)]
    rows = _rows(windows)
    whole = RegionsRead("g.fa", "0" * 32, {"chr1": _apart(one + other)[1]})
    assert (made[0] | made[1]).overlap("chr1", rows[:, 0], rows[:, 1]) == whole.overlap("chr1", rows[:, 0], rows[:, 1])


def test_a_genome_s_windows_are_found_again_after_json(write_fasta: Callable[..., Path]) -> None:
    genome = Genome.open(write_fasta({"a": "ACGT" * 50, "b": "GGCA" * 30}))
    table = tile(genome, 16)
    train = table.select(np.arange(len(table)) % 3 != 0)
    read = RegionsRead.from_dict(RegionsRead.of(genome, train).to_dict())
    assert read.xxh3_128 == genome.fingerprint.xxh3_128
    assert read.overlap_of(genome, train) == Overlap(len(train), len(train), train.bases, train.bases)
    held_out = table.select(np.arange(len(table)) % 3 == 0)
    assert read.overlap_of(genome, held_out) == Overlap(len(held_out), 0, held_out.bases, 0)
    halves = WindowTable(train.record[:1], train.start[:1] - 8, train.start[:1] + 8)
    assert read.overlap_of(genome, halves) == Overlap(1, 1, 16, 8)


def test_a_record_that_was_not_read_shares_nothing() -> None:
    read = RegionsRead("g.fa", "0" * 32, {"chr1": np.array([[0, 100]])})
    assert read.overlap("chr2", np.array([0]), np.array([50])) == Overlap(1, 0, 50, 0)


def _sequences(n: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).choice(np.frombuffer(b"ACGT", np.uint8), (n, 40)))


def test_sequences_are_known_again_on_either_strand() -> None:
    known, new = _sequences(50, 0), _sequences(30, 1)
    read = SequencesRead.from_dict(SequencesRead.of(known).to_dict())
    assert read.overlap(known) == Overlap(50, 50, 2000, 2000)
    assert read.overlap([reverse_complement(bases) for bases in known]).read_windows == 50
    assert read.overlap([*known[:10], *new]) == Overlap(40, 10, 1600, 400)


def test_of_many_sequences_an_even_sample_tells_the_share() -> None:
    known, new = _sequences(20_000, 2), _sequences(20_000, 3)
    read = SequencesRead.of(known)
    assert len(read.hashes) == 4096
    found = read.overlap([*known[:6000], *new[:6000]])
    assert 0.15 < found.windows / 12_000 < 0.26  # 4,096 of 20,000 can be told
    assert found.read_windows / found.windows == pytest.approx(0.5, abs=0.05)


def test_the_sentence_names_windows_and_bases() -> None:
    assert str(Overlap(45, 43, 1000, 955)) == "43 of 45 windows (96% of their bases)"
