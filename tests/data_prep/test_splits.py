"""Splits share no base and keep their distance; the audit finds what does leak, on either strand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.audit import K, audit, canonical_kmers
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval
from mamba_data_prep.genomes.splits import (
    Split,
    clusters,
    covered,
    default_split,
    names_splits,
    near,
    shared_bases,
    split_by_bed,
    split_by_block,
    split_by_record,
    union,
)
from mamba_data_prep.genomes.windows import WindowTable, cut, tile


@pytest.fixture
def genome(write_fasta, make_bases) -> Genome:
    return Genome.open(
        write_fasta({"chr1": make_bases(60_000, 1), "chr2": make_bases(30_000, 2), "chr3": make_bases(9_000, 3)})
    )


def table(*rows: tuple[int, int, int], window: int = 0) -> WindowTable:
    record, start, end = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return WindowTable(record.astype(np.int32), start, end, window)


def test_default_split_uses_nearly_everything(genome: Genome) -> None:
    split = default_split(genome, 100)
    report = audit(genome, split)
    assert report.ok
    assert all(distance is None or distance >= 100 for distance in report.closest.values())
    windows = {name: len(t) for name, t in split.tables().items()}
    assert 0.85 < windows["train"] / 990 < 0.92
    assert 0.035 < windows["valid"] / 990 < 0.07
    assert 0.035 < windows["test"] / 990 < 0.07
    assert report.overlapping_evaluation == {"valid": 0, "test": 0}
    assert json.loads(json.dumps(split.description))["digests"]["valid"] == split.valid.digest()


def test_same_seed_same_split_other_seed_other_split(genome: Genome) -> None:
    one, again, other = (default_split(genome, 100, seed) for seed in (0, 0, 1))
    assert one.description == again.description
    assert one.description["digests"]["valid"] != other.description["digests"]["valid"]
    assert one.description["digests"]["valid"] == "f2cf8d34833119eae0d49895b191fd59"


def test_evaluation_windows_do_not_move_with_the_training_stride(genome: Genome) -> None:
    plain, dense = split_by_block(genome, 100), split_by_block(genome, 100, stride=10)
    assert (dense.valid.digest(), dense.test.digest()) == (plain.valid.digest(), plain.test.digest())
    assert len(dense.train) > 9 * len(plain.train)
    assert audit(genome, dense).ok


def test_blocks_are_whole_windows_and_about_four_times_the_root_of_their_number(genome: Genome) -> None:
    blocks = {block: split_by_block(genome, 100, block=block).description["block"] for block in (401, 500, 501)}
    assert blocks == {401: 500, 500: 500, 501: 600}
    assert split_by_block(genome, 100).description["block"] == 800  # 990 windows, 124 blocks
    assert split_by_block(genome, 100, regions=[Interval("chr3", 0, 900)]).description["block"] == 100


def test_only_training_windows_follow_the_stride_and_the_seed_is_zero_unless_given(
    genome: Genome, tmp_path: Path
) -> None:
    path = tmp_path / "a.bed"
    path.write_text("chr1\t0\t1000\ttrain\nchr1\t3000\t3500\tvalid\nchr2\t0\t300\ttest\n")
    by_bed = [split_by_bed(genome, path, 100, stride=stride) for stride in (None, 100, 50)]
    assert [[len(t) for t in split.tables().values()] for split in by_bed] == [[10, 5, 3], [10, 5, 3], [19, 5, 3]]
    by_record = [split_by_record(genome, 100, valid=["chr2"], test=["chr3"], stride=s) for s in (None, 100, 50)]
    sizes = [[len(t) for t in split.tables().values()] for split in by_record]
    assert sizes == [[600, 300, 90], [600, 300, 90], [1199, 300, 90]]
    assert {split.description["gap"] for split in (*by_bed, *by_record)} == {0}  # how far apart is the user's affair
    assert split_by_record(genome, 100).description == split_by_record(genome, 100, seed=0).description
    assert split_by_block(genome, 100).description == split_by_block(genome, 100, seed=0).description
    assert default_split(genome, 100).description == default_split(genome, 100, seed=0).description


@pytest.mark.parametrize("gap", [100, 150, 1000])
def test_gap_is_kept(gap: int, genome: Genome) -> None:
    report = audit(genome, split_by_block(genome, 100, (0.6, 0.2, 0.2), gap=gap, block=500))
    assert min(d for d in report.closest.values() if d is not None) >= gap


def test_regions_are_kept_to_and_joined(genome: Genome) -> None:
    regions = [Interval("chr1", 10_000, 30_000), Interval("chr1", 20_000, 40_000), Interval("chr2", 50, 5_000)]
    split = split_by_block(genome, 100, regions=regions)
    everything = [tuple(r) for t in split.tables().values() for r in zip(t.record, t.start, t.end, strict=True)]
    assert len(set(everything)) == len(everything)
    assert all(
        (r == 0 and s >= 10_000 and e <= 40_000) or (r == 1 and s >= 50 and e <= 5_000) for r, s, e in everything
    )


def test_windows_of_a_block_split_do_not_run_from_one_region_into_the_next(genome: Genome) -> None:
    regions = [Interval("chr1", 0, 1_050), Interval("chr1", 1_050, 2_000), Interval("chr2", 0, 5_000)]
    split = split_by_block(genome, 100, (1.0, 0.0, 0.0), regions=regions)
    assert split.train.start[split.train.record == 0].tolist() == [*range(0, 1_050, 100), *range(1_050, 2_000, 100)]


@pytest.mark.parametrize("length", [500, 640, 1_000, 5_000])
@pytest.mark.parametrize("seed", range(8))
def test_small_genomes_work_from_five_windows_on(length: int, seed: int, write_fasta, make_bases) -> None:
    small = Genome.open(write_fasta({"a": make_bases(length, 1)}))
    split = default_split(small, 100, seed)
    assert min(len(split.train), len(split.valid), len(split.test)) >= 1
    assert audit(small, split).ok


def test_three_records_of_one_window_work(write_fasta, make_bases) -> None:
    small = Genome.open(write_fasta({name: make_bases(90, i) for i, name in enumerate("abc")}))
    assert [len(t) for t in default_split(small, 100).tables().values()] == [1, 1, 1]


@pytest.mark.parametrize("length", [1, 100, 400])
def test_too_small_genomes_are_refused(length: int, write_fasta, make_bases) -> None:
    small = Genome.open(write_fasta({"a": make_bases(length, 1)}))
    with pytest.raises(UserError, match=r"too few windows of 100 bases[\s\S]*shorter windows, of at most"):
        default_split(small, 100)


def test_a_refusal_tells_the_longest_record_and_the_windows_that_it_has_room_for(write_fasta, make_bases) -> None:
    small = Genome.open(write_fasta({"a": make_bases(60, 1), "b": make_bases(160, 2)}))
    with pytest.raises(UserError, match="too few windows") as caught:
        default_split(small, 100)
    assert caught.value.found == "2 records, the longest 160 bases"
    assert "of at most 20 bases" in caught.value.fix


def test_genome_of_n_is_refused(write_fasta) -> None:
    with pytest.raises(UserError, match="too few windows"):
        default_split(Genome.open(write_fasta({"a": "N" * 10_000})), 100)


def test_many_contigs_are_dealt_whole(write_fasta, make_bases) -> None:
    contigs = Genome.open(write_fasta({f"c{i}": make_bases(150, i) for i in range(300)}))
    split = default_split(contigs, 100)
    records = [set(t.record.tolist()) for t in split.tables().values()]
    assert sum(map(len, records)) == len(set.union(*records)) == 300
    assert len(records[1]) == len(records[2]) == 15


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"fractions": (0.5, 0.2, 0.2)}, "no split"),
        ({"fractions": (0.0, 0.5, 0.5)}, "no split"),
        ({"fractions": (1.2, -0.1, -0.1)}, "no split"),
        ({"gap": 99}, "at least one window"),
    ],
)
def test_wrong_numbers(arguments: dict, problem: str, genome: Genome) -> None:
    with pytest.raises(UserError, match=problem):
        split_by_block(genome, 100, **arguments)


def test_no_test_split_where_none_is_wanted(genome: Genome) -> None:
    split = split_by_block(genome, 100, (0.9, 0.1, 0.0))
    assert (len(split.test), len(split.valid) > 90) == (0, True)


def test_split_by_record(genome: Genome) -> None:
    split = split_by_record(genome, 1000, valid=["3"], test=["chr2"])
    assert [sorted(set(t.record.tolist())) for t in split.tables().values()] == [[0], [2], [1]]
    assert split.description["valid"] == ["chr3"]
    only_one = split_by_record(genome, 1000, valid=["3"]), split_by_record(genome, 1000, test=["3"])
    assert [[len(t) > 0 for t in split.tables().values()] for split in only_one] == [
        [True, True, False], [True, False, True],
    ]  # fmt: skip
    by_fraction = split_by_record(genome, 1000)
    assert sorted(int(t.record[0]) for t in by_fraction.tables().values()) == [0, 1, 2]
    with pytest.raises(UserError, match="named for validation and for testing"):
        split_by_record(genome, 1000, valid=["chr3"], test=["3"])
    with pytest.raises(UserError, match="no record of this name"):
        split_by_record(genome, 1000, valid=["chr4"])
    with pytest.raises(UserError, match="none is left for train"):
        split_by_record(genome, 1000, valid=["chr1"], test=["chr2", "chr3"])


def test_split_by_bed(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("1\t0\t1000\ttrain\n1\t900\t2000\ttrain\n1\t3000\t3500\tval\nchr2\t0\t250\ttest\n")
    split = split_by_bed(genome, path, 100)
    assert [(len(t), int(t.start[0]), int(t.end[-1])) for t in split.tables().values()] == [
        (20, 0, 2000), (5, 3000, 3500), (3, 0, 250),
    ]  # fmt: skip
    assert audit(genome, split).ok
    assert split.description["intervals"] == {"train": 2, "valid": 1, "test": 1}


@pytest.mark.parametrize(
    ("label", "split"),
    [
        ("train", 0),
        ("training", 0),
        ("valid", 1),
        ("val", 1),
        ("validation", 1),
        ("dev", 1),
        ("Test", 2),
        ("testing", 2),
    ],
)
def test_splits_have_the_names_that_people_give_them(label: str, split: int, genome: Genome) -> None:
    parts = split_by_bed(genome, [Interval("chr1", 0, 100, ".", label)], 100).tables().values()
    assert [len(part) for part in parts] == [int(number == split) for number in range(3)]


def test_intervals_that_overlap_are_joined_wherever_they_stand(genome: Genome) -> None:
    places = [("chr2", 0, 200), ("chr1", 250, 400), ("chr1", 200, 300), ("chr1", 0, 100), ("chr1", 400, 450)]
    split = split_by_bed(genome, [Interval(name, start, end, ".", "train") for name, start, end in places], 100)
    assert split.train.start.tolist() == [0, 200, 300, 400, 0, 100]
    assert split.train.record.tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(("second", "starts"), [(150, [0, 100, 150, 250]), (149, [0, 100, 200])])
def test_intervals_that_only_touch_are_cut_apart(second: int, starts: list[int], genome: Genome) -> None:
    intervals = [Interval("chr1", 0, 100, ".", "train")]
    intervals += [Interval("chr2", start, end, ".", "train") for start, end in ((0, 150), (second, 300))]
    train = split_by_bed(genome, intervals, 100).train
    assert (train.start[train.record == 0].tolist(), train.start[train.record == 1].tolist()) == ([0], starts)


def test_bed_whose_splits_share_bases_is_refused(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("chr2\t0\t9\tvalid\nchr1\t0\t100\ttest\n1\t300\t400\ttrain\nchr1\t99\t200\ttrain\n")
    with pytest.raises(UserError, match="shares bases") as caught:
        split_by_bed(genome, path, 10)
    assert caught.value.line == 4


def test_bed_with_other_labels_is_refused(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "a.bed"
    path.write_text("chr1\t0\t100\ttrain\nchr1\t200\t300\tBRCA1\n")
    with pytest.raises(UserError, match="names no split") as caught:
        split_by_bed(genome, path, 10)
    assert (caught.value.line, caught.value.found) == (2, "BRCA1")


def test_whether_labels_are_splits() -> None:
    split = [Interval("a", 0, 1, ".", "Train"), Interval("a", 1, 2, ".", "val"), Interval("a", 2, 3, ".", "test")]
    assert names_splits(split)
    assert names_splits([*split, Interval("a", 3, 4, ".", "trian")])  # `split_by_bed` then names the odd line
    assert not names_splits([Interval("a", 3, 4, ".", "TRAINING_GENE1")])
    assert not names_splits([Interval("a", 3, 4)])


def test_near_counts_bases_exactly() -> None:
    windows = table((0, 0, 10), (0, 10, 20), (0, 20, 30), (0, 30, 40), (1, 20, 30))
    for gap, expected in ((0, [0, 0, 1, 0, 0]), (1, [0, 1, 1, 1, 0]), (10, [0, 1, 1, 1, 0]), (11, [1, 1, 1, 1, 0])):
        assert near(windows, [table((0, 20, 30))], gap).tolist() == [bool(e) for e in expected]
    assert near(windows, [table((0, 25, 26), (0, 0, 40))]).tolist() == [True] * 4 + [False]
    assert not near(windows, []).any()


def test_a_window_shares_each_base_once_with_however_many_others() -> None:
    windows = table((0, 0, 10), (0, 10, 20), (0, 15, 40), (1, 15, 40), (2, 0, 10))
    others = [table((1, 39, 90), (0, 8, 12), (0, 18, 20)), table((0, 10, 15), (0, 30, 32))]
    assert shared_bases(windows, others).tolist() == [2, 7, 4, 1, 0]
    assert shared_bases(windows, others[:1]).tolist() == [2, 4, 2, 1, 0]
    assert shared_bases(windows, [table()]).tolist() == [0] * 5


def test_bases_of_stretches_are_counted_up_to_each_place() -> None:
    stretches = np.array([[2, 5], [7, 8]])
    assert covered(stretches, np.arange(10)).tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 4, 4]
    assert covered(stretches[:0], np.arange(3)).tolist() == [0, 0, 0]


def test_windows_that_overlap_or_touch_are_one_cluster_and_one_stretch() -> None:
    windows = table((1, 0, 10), (0, 21, 30), (0, 0, 10), (0, 9, 20), (0, 30, 31), (1, 5, 7))
    assert clusters(windows).tolist() == [2, 1, 0, 0, 1, 2]
    stretches = union(windows)
    found = zip(stretches.record.tolist(), stretches.start.tolist(), stretches.end.tolist(), strict=True)
    assert list(found) == [(0, 0, 20), (0, 21, 31), (1, 0, 10)]


def split_of(train: WindowTable, valid: WindowTable, test: WindowTable) -> Split:
    return Split(train, valid, test, {})


def test_audit_finds_one_shared_base(genome: Genome) -> None:
    train, test = table((0, 0, 100), (0, 300, 400)), table((0, 900, 1000))
    clean = audit(genome, split_of(train, table((0, 100, 200)), test))
    assert (clean.ok, clean.closest["train-valid"]) == (True, 0)
    leak = audit(genome, split_of(train, table((0, 150, 201), (0, 250, 301)), test))
    assert not leak.ok
    assert leak.shared_windows == {"train-valid": 1, "train-test": 0, "valid-test": 0}
    assert str(leak).startswith("LEAK")
    assert leak.to_dict()["ok"] is False
    assert json.dumps(leak.to_dict())


def test_audit_counts_overlapping_evaluation_windows(genome: Genome) -> None:
    valid = table((0, 500, 600), (0, 550, 650), (1, 550, 650))
    assert audit(genome, split_of(table((0, 0, 100)), valid, table())).overlapping_evaluation == {"valid": 1, "test": 0}


@pytest.mark.parametrize("other_strand", [False, True])
@pytest.mark.parametrize("shift", [0, 37])
def test_audit_finds_copies_on_either_strand(other_strand: bool, shift: int, write_fasta, make_bases) -> None:
    original = make_bases(2000, 1)
    copied = np.frombuffer(original[500:1000].encode(), dtype=np.uint8)
    copied = reverse_complement(copied) if other_strand else copied
    held_out = make_bases(500 + shift, 2) + copied.tobytes().decode() + make_bases(500, 3)
    genome = Genome.open(write_fasta({"train": original, "valid": held_out, "test": make_bases(600, 4)}))
    split = split_by_record(genome, 250, valid=["valid"], test=["test"])
    report = audit(genome, split)
    assert report.ok
    assert report.copies["test"].near == 0
    assert report.copies["valid"].compared == 7 if shift else 6
    assert report.copies["valid"].exact == (1 if shift else 2)
    assert f"{report.copies['valid'].near} of" in str(report)


def test_audit_of_windows_without_kmers(write_fasta, make_bases) -> None:
    genome = Genome.open(write_fasta({"a": make_bases(20, 1), "b": "ACGTN" * 5, "c": make_bases(20, 3)}))
    copies = audit(genome, split_by_record(genome, 30, valid=["b"], test=["c"])).copies
    assert [c.compared for c in copies.values()] == [0, 0]


def test_kmers_are_those_of_a_plain_loop(make_bases) -> None:
    text = make_bases(50, 1) + "N" + make_bases(40, 2) + "RR" + make_bases(31, 3)
    digits = str.maketrans("ACGT", "0123")
    expected = []
    for i in range(len(text) - K + 1):
        part = text[i : i + K]
        if not set(part) - set("ACGT"):
            other = part[::-1].translate(str.maketrans("ACGT", "TGCA"))
            expected.append(min(int(p.translate(digits), 4) for p in (part, other)))
    assert canonical_kmers(np.frombuffer(text.encode(), dtype=np.uint8)).tolist() == expected
    assert len(canonical_kmers(np.frombuffer(text[:31].encode(), dtype=np.uint8))) == 0


def test_windows_longer_than_their_regions_are_two_a_region_within_the_splits_borders(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(b">one\n" + b"ACGT" * 500 + b"\n>two\n" + b"ACGT" * 50 + b"\n")
    genome = Genome.open(path)
    lines = [
        ("one", 0, 100, "train"), ("one", 600, 700, "train"), ("one", 700, 800, "train"), ("one", 1000, 1100, "valid"),
        ("one", 1100, 1200, "valid"), ("one", 1300, 1400, "train"), ("one", 1500, 1600, "test"),
        ("one", 1900, 2000, "train"), ("two", 50, 150, "train"),
    ]  # fmt: skip
    bed = tmp_path / "splits.bed"
    bed.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    split = split_by_bed(genome, bed, 250, beyond=True)
    found = list(zip(split.train.record.tolist(), split.train.start.tolist(), split.train.end.tolist(), strict=True))
    assert found == [
        (0, 0, 250),  # both of the first region's: the record's end moves the second
        (0, 450, 700), (0, 550, 800), (0, 600, 850), (0, 700, 950),
        (0, 1200, 1450), (0, 1250, 1500),  # moved by the neighbours' borders
        (0, 1750, 2000),
        (1, 0, 200),  # all there is of that record
    ]  # fmt: skip
    assert [(s, e) for s, e in zip(split.valid.start.tolist(), split.valid.end.tolist(), strict=True)] == [(1000, 1200)]
    assert split.test.start.tolist() == [1500]
    assert not near(split.train, [split.valid, split.test]).any()
    assert split_by_bed(genome, bed, 100, beyond=True).train.digest() == split_by_bed(genome, bed, 100).train.digest()
    assert split.description["beyond"] is True
    assert "beyond" not in split_by_bed(genome, bed, 250).description


def test_only_intervals_shorter_than_a_window_are_reached_beyond(genome: Genome) -> None:
    train = [Interval("chr1", start, start + n, ".", "train") for start, n in ((0, 300), (1_000, 100), (2_000, 60))]
    held = [Interval("chr2", 0, 500, ".", "valid"), Interval("chr2", 900, 1_400, ".", "test")]
    found = split_by_bed(genome, [*train, *held], 100, stride=50, beyond=True).train
    long = [(0, 100), (50, 150), (100, 200), (150, 250), (200, 300), (1_000, 1_100)]
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [*long, (1_960, 2_060), (2_000, 2_100)]


def test_windows_are_cut_into_shorter_ones(tmp_path):
    path = tmp_path / "genome.fa"
    path.write_bytes(b">one\n" + b"ACGT" * 25 + b"N" * 20 + b"ACGT" * 20 + b"\n")
    genome = Genome.open(path)
    table = tile(genome, 70, max_n_fraction=1.0)
    found = cut(genome, table, 20, max_n_fraction=0.4)
    assert found.window == 20
    assert found.start.tolist() == [0, 20, 40, 60, 70, 130, 140, 160, 180]
    assert (found.end - found.start).tolist() == [20, 20, 20, 10, 20, 10, 20, 20, 20]
