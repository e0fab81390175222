"""Windows lie where they should; nothing is shifted, and nothing is lost without being counted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import windows
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval
from mamba_data_prep.genomes.windows import WindowTable, tile


@pytest.fixture
def genome(write_fasta, make_bases) -> Genome:
    return Genome.open(write_fasta({"chr1": make_bases(25, 1), "2": make_bases(10, 2), "x": make_bases(3, 3)}))


def rows(table: WindowTable) -> list[tuple[int, int, int]]:
    return list(zip(table.record.tolist(), table.start.tolist(), table.end.tolist(), strict=True))


def test_last_window_is_short_never_shifted(genome: Genome) -> None:
    table = tile(genome, 10)
    assert rows(table) == [(0, 0, 10), (0, 10, 20), (0, 20, 25), (1, 0, 10), (2, 0, 3)]
    assert table.counts == {
        "windows": 5, "skipped_unknown": 0, "dropped_short": 0, "bases": 38, "unknown_bases": 0,
    }  # fmt: skip
    assert (table.window, len(table), table.bases) == (10, 5, 38)
    assert (table.record.dtype, table.start.dtype, table.end.dtype) == (np.int32, np.int64, np.int64)


def test_short_windows_are_dropped_where_asked(genome: Genome) -> None:
    table = tile(genome, 10, last="drop")
    assert rows(table) == [(0, 0, 10), (0, 10, 20), (1, 0, 10)]
    assert table.counts["dropped_short"] == 2


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        (5, [(0, 0, 10), (0, 5, 15), (0, 10, 20), (0, 15, 25)]),
        (4, [(0, 0, 10), (0, 4, 14), (0, 8, 18), (0, 12, 22), (0, 16, 25)]),
        (12, [(0, 0, 10), (0, 12, 22), (0, 24, 25)]),
        (30, [(0, 0, 10)]),
    ],
)
def test_stride(stride: int, expected: list, genome: Genome) -> None:
    assert rows(tile(genome, 10, stride, records=["chr1"])) == expected


def test_records_by_name_other_name_and_number(genome: Genome) -> None:
    assert rows(tile(genome, 10, records=["chr2", "1"])) == [(1, 0, 10), (0, 0, 10), (0, 10, 20), (0, 20, 25)]
    assert rows(tile(genome, 10, records=[2])) == [(2, 0, 3)]


def test_regions_begin_where_they_begin(genome: Genome) -> None:
    regions = [Interval("1", 3, 18), Interval("chr2", 4, 6)]
    assert rows(tile(genome, 10, regions=regions)) == [(0, 3, 13), (0, 13, 18), (1, 4, 6)]
    assert rows(tile(genome, 10, regions=regions, records=["2"])) == [(1, 4, 6)]
    assert rows(tile(genome, 10, regions=[])) == []


def test_windows_of_unknown_bases_are_skipped_and_counted(write_fasta) -> None:
    genome = Genome.open(write_fasta({"a": "NNNNN" + "ANNNN" + "AANNN" + "AAANN" + "AAAAA" + "RYK"}))
    half = tile(genome, 5)
    assert rows(half) == [(0, 15, 20), (0, 20, 25)]
    assert (half.counts["skipped_unknown"], half.counts["unknown_bases"]) == (4, 2)
    most = tile(genome, 5, max_n_fraction=1.0)
    assert rows(most) == [(0, 5, 10), (0, 10, 15), (0, 15, 20), (0, 20, 25)]
    assert rows(tile(genome, 5, max_n_fraction=0.0)) == [(0, 20, 25)]


def test_window_longer_than_every_record(genome: Genome) -> None:
    assert rows(tile(genome, 1000)) == [(0, 0, 25), (1, 0, 10), (2, 0, 3)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"window": 0}, "at least 1 base"),
        ({"window": 5, "stride": 0}, "at least 1 base"),
        ({"window": 5, "max_n_fraction": 2.0}, "between 0 and 1"),
        ({"window": 5, "records": ["y"]}, "no record of this name"),
        ({"window": 5, "records": [3]}, "no such record"),
        ({"window": 5, "regions": [Interval("y", 0, 3)]}, "no record of this name"),
        ({"window": 5, "regions": [Interval("x", 0, 4)]}, "beyond the record's end"),
    ],
)
def test_refused(arguments: dict, problem: str, genome: Genome) -> None:
    with pytest.raises(UserError, match=problem):
        tile(genome, **arguments)


def test_select_and_digest(genome: Genome) -> None:
    table = tile(genome, 10)
    assert rows(table.select(np.array([3, 0]))) == [(1, 0, 10), (0, 0, 10)]
    mask = table.record == 0
    assert rows(table.select(mask)) == rows(table)[:3]
    assert table.digest() == tile(genome, 10).digest() == table.select(np.arange(5)).digest()
    assert len({table.digest(), table.select(mask).digest(), tile(genome, 11).digest()}) == 3
    assert table.digest() == "a582b2b71befaa741c39e62d7f4026cc"


def test_table_checks_itself() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        WindowTable(np.zeros(2, np.int32), np.zeros(1, np.int64), np.ones(1, np.int64))
    with pytest.raises(ValueError, match="window of 9 bases"):
        WindowTable(np.zeros(1, np.int32), np.zeros(1, np.int64), np.full(1, 9), 5)


def test_large_tables_are_made_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b">a\n" + b"ACGTNACGTA" * 300_000 + b"\n")
    table = tile(Genome.open(path), 1)
    assert len(table) == 2_700_000
    assert table.counts["skipped_unknown"] == 300_000


def test_making_a_table_takes_little_more_memory_than_the_table(write_fasta, make_bases) -> None:
    genome = Genome.open(write_fasta({"a": make_bases(1_000_000, 1)}))
    tracemalloc.start()
    try:
        made = tile(genome, 16, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    table = sum(column.nbytes for column in (made.record, made.start, made.end))
    assert len(made) == 499_993
    assert peak < table + 6_000_000


@pytest.mark.parametrize("at_a_time", [1, 3, 7])
def test_a_table_is_the_same_however_many_windows_are_made_at_a_time(
    at_a_time: int, write_fasta, make_bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {f"r{i}": "N" * (i % 3 * 9) + make_bases(1 + 17 * i % 40, i) for i in range(9)}
    genome = Genome.open(write_fasta(records))
    expected = tile(genome, 10, 4)
    monkeypatch.setattr(windows, "_AT_A_TIME", at_a_time)
    found = tile(genome, 10, 4)
    assert rows(found) == rows(expected)
    assert found.counts == expected.counts
    assert found.counts["skipped_unknown"] > 0
