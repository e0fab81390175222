"""Tasks turn files into splits that share nothing: tables by sequence, genomes by place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import LabelledData, canonical
from genomamba.classifier.tasks.genomes import Stretches, promoter_files, promoter_genome, species_data
from genomamba.classifier.tasks.stretches import cut_sections
from genomamba.classifier.tasks.tasks import class_balance, named_files, table_data
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import reverse_complement


def _sequences(data: LabelledData) -> dict[str, set[bytes]]:
    return {name: {canonical(bases) for bases in examples} for name, examples in data.splits().items()}


def _share_nothing(data: LabelledData) -> bool:
    parts = list(_sequences(data).values())
    return not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_a_table_is_split_by_sequence_and_strand(tmp_path: Path, make_bases: Callable[[int, int], str]) -> None:
    texts = [make_bases(30, i) for i in range(300)]
    turned = [reverse_complement(np.frombuffer(t.encode(), np.uint8)).tobytes().decode() for t in texts]
    path = tmp_path / "t.csv"
    path.write_text("sequence,label\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(texts + turned)))
    data = table_data([path], FinetuneData())
    assert _share_nothing(data)
    assert sum(len(e) for e in data.splits().values()) == 600
    assert data.counts() == {name: {"0": n, "1": n} for name, n in {"train": 240, "valid": 30, "test": 30}.items()}
    again = table_data([path], FinetuneData())
    assert _sequences(again) == _sequences(data)


def test_near_copies_of_training_sequences_are_flagged_on_either_strand(
    tmp_path: Path, make_bases: Callable[[int, int], str]
) -> None:
    path = tmp_path / "t.csv"
    lines = []
    for i in range(60):
        text = make_bases(80, i)
        near = text[:40] + {"A": "C", "C": "G", "G": "T", "T": "A"}[text[40]] + text[41:]
        turned = reverse_complement(np.frombuffer(near.encode(), np.uint8)).tobytes().decode()
        lines += [f"{text},{i % 2},train", f"{turned if i < 20 else make_bases(80, 999 + i)},{i % 2},test"]
    lines += [f"{make_bases(80, 5000 + i)},{i % 2},valid" for i in range(8)]
    path.write_text("sequence,label,split\n" + "\n".join(lines) + "\n")
    (said,) = table_data([path], FinetuneData()).warnings
    assert said.startswith("20 of 60 test sequences are nearly copies")
    assert "t.csv line 3 of t.csv line 2" in said


def test_held_out_sequences_are_dropped_from_training_and_named(
    tmp_path: Path, make_bases: Callable[[int, int], str]
) -> None:
    texts = [make_bases(30, i) for i in range(20)]
    rows = {"train.csv": texts[:12], "dev.csv": texts[12:16] + texts[:1], "test.csv": texts[16:] + texts[1:3]}
    for name, own in rows.items():
        body = "".join(f"{t},{'ab'[texts.index(t) % 2]}\n" for t in own)
        (tmp_path / name).write_text("sequence,label\n" + body)
    data = table_data([tmp_path / "train.csv"], FinetuneData(), valid=tmp_path / "dev.csv", test=tmp_path / "test.csv")
    assert [len(e) for e in data.splits().values()] == [9, 5, 6]
    assert _share_nothing(data)
    assert data.description["dropped_for_leakage"] == 3
    assert "train.csv line 2, train.csv line 3, train.csv line 4" in data.warnings[0]


def test_given_test_rows_stay_in_test_though_their_copies_are_validated_on(
    tmp_path: Path, make_bases: Callable[[int, int], str]
) -> None:
    texts = [make_bases(30, i) for i in range(40)]
    body = "".join(f"{t},{'ab'[i % 2]},{split}\n" for split in ("train", "test") for i, t in enumerate(texts))
    fresh = "".join(f"{make_bases(30, 100 + i)},{'ab'[i % 2]},train\n" for i in range(40))
    (tmp_path / "t.csv").write_text("sequence,label,split\n" + body + fresh)
    data = table_data([tmp_path / "t.csv"], FinetuneData(valid_fraction=0.4))
    assert [bases.tobytes().decode() for bases in data.test] == texts
    assert _share_nothing(data)


def test_labels_are_ordered_as_numbers_where_they_are(tmp_path: Path, make_bases: Callable[[int, int], str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sequence,label\n" + "".join(f"{make_bases(20, i)},{(i % 3) * 5}\n" for i in range(150)))
    assert table_data([path], FinetuneData()).classes == ("0", "5", "10")


def test_long_sequences_are_cut_to_their_middle_and_said(tmp_path: Path, make_bases: Callable[[int, int], str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sequence,label\n" + "".join(f"{make_bases(40, i)},{i % 2}\n" for i in range(100)))
    data = table_data([path], FinetuneData(window=20))
    assert data.window == 20
    assert set(data.train.lengths()) == {20}
    assert any("cut to their middle" in warning for warning in data.warnings)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40_000), min_size=1, max_size=6),
    window=st.integers(8, 300),
    gap=st.one_of(st.none(), st.integers(0, 900)),
)
def test_sections_never_touch_another_split(lengths: list[int], window: int, gap: int | None) -> None:
    try:
        sections = cut_sections(lengths, window, 0.1, 0.15, gap=gap)
    except UserError:
        assert sum(lengths) < 60 * window or max(lengths) < 3000 or (gap or 0) > 200 or len(lengths) > 1
        return
    least = max(window, gap or 0)
    for one in sections:
        assert 0 <= one.start < one.end <= lengths[one.record]
        assert one.end - one.start >= window
        for other in sections:
            if other.record == one.record and other.split != one.split:
                assert other.start - one.end >= least or one.start - other.end >= least


def _species(write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]) -> dict[str, list[Path]]:
    base = make_bases(40_000, 1)
    other = base[:20_000] + make_bases(60, 2) + base[20_000:]
    return {
        "one": [write_fasta({"c1": base.lower()[:10_000] + base[10_000:]}, "one.fa")],
        "two": [write_fasta({"c2": other[:5000] + "N" * 300 + other[5300:]}, "two.fa")],
    }


def test_aligned_genomes_hold_each_locus_in_one_split(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]
) -> None:
    data = species_data(_species(write_fasta, make_bases), FinetuneData(window=100))
    assert data.classes == ("one", "two")
    assert not data.stranded
    counts = data.counts()
    assert all(row["one"] == row["two"] > 10 for row in counts.values())
    words = {
        name: {bases.tobytes()[i : i + 25] for bases in examples for i in range(0, 76, 1)}
        for name, examples in data.splits().items()
    }
    assert not words["train"] & words["test"]
    assert not words["train"] & words["valid"]
    assert all(b"N" not in bases.tobytes() and bases.tobytes().isupper() for bases in data.train)


def test_species_refuses_what_makes_no_sense(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]
) -> None:
    path = write_fasta({"a": make_bases(500, 1)})
    with pytest.raises(UserError, match="at least two classes"):
        species_data({"one": [path]}, FinetuneData())
    with pytest.raises(UserError, match="given twice"):
        species_data({"one": [path], "two": [path]}, FinetuneData())
    with pytest.raises(UserError, match="no whole window"):
        species_data({"one": [path], "two": [write_fasta({"b": make_bases(500, 2)}, "b.fa")]}, FinetuneData(window=99))


def test_classes_are_named_once_with_many_files() -> None:
    assert named_files(["b=x.fa", "a=y.fa", "b=z=1.fa"]) == {"b": [Path("x.fa"), Path("z=1.fa")], "a": [Path("y.fa")]}
    for bad in ("x.fa", "=x.fa", "a="):
        with pytest.raises(UserError, match="NAME=FASTA"):
            named_files([bad])


def test_promoters_are_cut_around_their_sites_in_their_own_direction(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    text = make_bases(120_000, 4)
    fasta = write_fasta({"20": text})
    sites = [(2000 + 1500 * i, "+-"[i % 2]) for i in range(78)]
    bed = tmp_path / "tss.bed"
    bed.write_text("".join(f"chr20\t{p}\t{p + 1}\tg\t0\t{s}\n" for p, s in sites))
    data = promoter_genome(fasta, bed, FinetuneData(upstream=9, downstream=5, tss_distance=200), seed=0)
    assert data.window == 15
    expected = set()
    for place, strand in sites:
        plus = strand == "+"
        cut = text[place - 9 : place + 6] if plus else text[place - 5 : place + 10]
        bases = np.frombuffer(cut.encode(), np.uint8)
        expected.add(bases.tobytes() if plus else reverse_complement(bases).tobytes())
    for examples in data.splits().values():
        source = examples.source
        assert isinstance(source, Stretches)
        assert {b.tobytes() for b, y in zip(examples, examples.labels, strict=True) if y == 1} <= expected
        assert (examples.labels == 0).sum() == (examples.labels == 1).sum() > 2
        for row in examples.rows[examples.labels == 0]:
            first, last = int(source.start[row]), int(source.end[row])
            assert all(not first - 200 <= p < last + 200 for p, _ in sites)
    assert sum((e.labels == 1).sum() for e in data.splits().values()) > 60


def test_start_sites_without_a_strand_are_not_silently_plus(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    fasta, bed = write_fasta({"20": make_bases(120_000, 4)}), tmp_path / "tss.bed"
    bed.write_text("".join(f"20\t{p}\t{p + 1}\n" for p in range(2000, 119_000, 1500)))
    with pytest.raises(UserError, match="no strand"):
        promoter_genome(fasta, bed, FinetuneData(upstream=9, downstream=5, tss_distance=200), seed=0)
    said = FinetuneData(upstream=9, downstream=5, tss_distance=200, strand="minus")
    data = promoter_genome(fasta, bed, said, seed=0)
    source = data.train.source
    assert isinstance(source, Stretches)
    assert source.minus[data.train.rows[data.train.labels == 1]].all()


def test_promoters_from_two_files(write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]) -> None:
    yes = write_fasta({f"p{i}": make_bases(50, i) for i in range(80)}, "yes.fa")
    no = write_fasta({f"n{i}": make_bases(50, 1000 + i) for i in range(80)}, "no.fa")
    data = promoter_files(yes, no, FinetuneData(), seed=0)
    assert data.classes == ("other", "promoter")
    assert sum(len(e) for e in data.splits().values()) == 160
    assert _share_nothing(data)


def test_a_record_without_bases_is_left_out_of_training_and_said(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    no = write_fasta({f"n{i}": make_bases(50, 1000 + i) for i in range(40)}, "no.fa")
    yes = tmp_path / "yes.fa"
    yes.write_text("".join(f">p{i}\n{make_bases(50, i)}\n" for i in range(40)) + ">last\n")
    data = promoter_files(yes, no, FinetuneData(), seed=0)
    assert sum(len(e) for e in data.splits().values()) == 80
    assert data.warnings == ("1 records have no bases and were left out: yes.fa line 81",)


def test_class_weights_have_mean_one_over_the_examples() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    weights = class_balance(labels, 2)
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[1] == pytest.approx(3 * weights[0])
