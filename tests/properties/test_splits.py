"""No genome, window or seed makes a split that leaks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import default_split, merged, near
from mamba_data_prep.genomes.windows import WindowTable


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(1, 60), st.integers(0, 2**64), st.integers(0, 9)
)
def test_no_base_is_shared_and_the_gap_is_kept(lengths: list[int], window: int, seed: int, unknown: int) -> None:
    rng = np.random.default_rng(seed % 1000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fa"
        letters = "ACGT" + "N" * unknown
        path.write_text("".join(f">{i}\n{''.join(rng.choice(list(letters), n))}\n" for i, n in enumerate(lengths)))
        genome = Genome.open(path, folder)
        try:
            split = default_split(genome, window, seed)
        except UserError as error:
            split = None
            assert "too few windows" in error.problem  # noqa: PT017  (refusing is one of the two right answers)
        genome.close()
    if split is None:
        return
    owner = [np.zeros(n, dtype=int) for n in lengths]
    for mark, table in enumerate(split.tables().values(), 1):
        assert len(table)
        for record, start, end in zip(table.record, table.start, table.end, strict=True):
            assert (owner[record][start:end] == 0).all()
            owner[record][start:end] = mark
    for marks in owner:
        places = np.flatnonzero(marks)
        changes = np.flatnonzero(np.diff(marks[places]))
        assert all(places[c + 1] - places[c] > window for c in changes)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 20)), max_size=12),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 20)), max_size=12),
    st.integers(0, 10),
)
def test_near_is_what_comparing_every_pair_says(windows: list, others: list, gap: int) -> None:
    def table(rows: list[tuple[int, int, int]]) -> WindowTable:
        record, start, length = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        return WindowTable(record.astype(np.int32), start, start + length)

    expected = [any(r == q and s < p + m + gap and p - gap < s + n for q, p, m in others) for r, s, n in windows]
    assert near(table(windows), [table(others[:5]), table(others[5:])], gap).tolist() == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=12))
def test_merged_is_the_union(intervals: list[tuple[int, int]]) -> None:
    starts, lengths = np.array(intervals, dtype=np.int64).reshape(-1, 2).T
    begin, end = merged(starts, starts + lengths)
    covered = {p for s, n in intervals for p in range(s, s + n)}
    assert {p for s, e in zip(begin, end, strict=True) for p in range(s, e)} == covered
    assert (begin[1:] > end[:-1]).all()
