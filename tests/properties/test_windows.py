"""Whatever the lengths, window and stride: windows cover each base that they should, and none twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.windows import tile


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text("ACGTN", min_size=1, max_size=60), min_size=1, max_size=4),
    st.integers(1, 25),
    st.integers(1, 30),
    st.floats(0, 1),
)
def test_tiles(sequences: list[str], window: int, stride: int, most_unknown: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fa"
        path.write_text("".join(f">{i}\n{s}\n" for i, s in enumerate(sequences)))
        genome = Genome.open(path, folder)
        table = tile(genome, window, stride, max_n_fraction=most_unknown)
        everything = tile(genome, window, stride, max_n_fraction=1.0)
        dropped = tile(genome, window, stride, max_n_fraction=most_unknown, last="drop")
        genome.close()

    expected = []
    for record, sequence in enumerate(sequences):
        covered = 0
        for start in range(0, len(sequence), stride):
            if start and start + window > len(sequence) and covered >= len(sequence):
                break
            part = sequence[start : start + window]
            covered = start + window
            if part.count("N") <= most_unknown * len(part) and part.strip("N"):
                expected.append((record, start, min(len(sequence), start + window)))
    found = list(zip(table.record.tolist(), table.start.tolist(), table.end.tolist(), strict=True))
    assert found == expected
    assert [row for row in found if row[2] - row[1] == window] == list(
        zip(dropped.record.tolist(), dropped.start.tolist(), dropped.end.tolist(), strict=True)
    )
    if stride <= window:
        depth = [np.zeros(len(s), int) for s in sequences]
        for record, start, end in zip(everything.record, everything.start, everything.end, strict=True):
            depth[record][start:end] += 1
        for sequence, times in zip(sequences, depth, strict=True):
            known = np.array([base != "N" for base in sequence])
            assert (times[known] > 0).all()
            assert stride < window or (times <= 1).all()
