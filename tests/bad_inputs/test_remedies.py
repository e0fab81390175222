"""The mend that an error names does mend it, when it is followed to the letter."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.tasks.genomes import promoter_genome, species_data
from genomamba.classifier.tasks.labelled_tables import read_table
from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions, read_series

SETTING = re.compile(r"--set data\.(\w+)=N")
DAYS = [f"2024-01-{day:02d}" for day in range(1, 29)]
SERIES = {
    "decimal mark": ("t;y\n" + "".join(f"{day};1,{i:03d}\n" for i, day in enumerate(DAYS)), r"--read (decimal=,)"),
    "a word for no value": (
        "t,y\n" + "".join(f"{day},{'off' if i == 9 else i}\n" for i, day in enumerate(DAYS)), r"--read (missing='off')",
    ),
    "a column to leave out": (
        "t,y,z\n" + "".join(f"{day},{i},{'off' if i == 9 else i}\n" for i, day in enumerate(DAYS)),
        r"--read (ignore='z')",
    ),
    "two rows of one time": (
        "t,y\n" + "".join(f"{day},{i}\n" for i, day in enumerate([*DAYS, DAYS[3]])), r"--read (duplicates=mean)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_a_reading_option_that_an_error_names_lets_the_file_be_read(name: str, tmp_path: Path) -> None:
    text, pattern = SERIES[name]
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_series(path)
    named = re.search(pattern, str(caught.value.fix))
    assert named, caught.value.fix
    frame = read_series(path, ReadOptions().having([named[1].replace("'", "")]))
    assert len(frame.frame) == len(DAYS)


def test_days_and_months_that_may_be_exchanged_are_settled_as_the_error_says(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("t,y\n" + "".join(f"0{day}/0{month}/2024,{day}\n" for month in (1, 2) for day in range(1, 10)))
    with pytest.raises(UserError, match="can be day/month or month/day") as caught:
        read_series(path)
    assert caught.value.fix == "say which: --dayfirst or --monthfirst"
    path.write_text("t,y\n" + "".join(f"0{day}/01/2024,{day}\n" for day in range(1, 10)))
    assert len(read_series(path, ReadOptions(dayfirst=True)).frame) == 9


def smaller(data: FinetuneData, fix: str, value: int) -> FinetuneData:
    names = SETTING.findall(fix)
    assert names, fix
    return data.model_copy(update=dict.fromkeys(names, value))


@pytest.fixture
def annotated(make_bases: Callable[[int, int], str], tmp_path: Path) -> tuple[Path, Path]:
    """A genome of 5,000 bases and start sites 150 bases apart on it."""
    genome, sites = tmp_path / "g.fa", tmp_path / "tss.bed"
    genome.write_text(f">chr1\n{make_bases(5000, 1)}\n")
    sites.write_text("".join(f"chr1\t{at}\t{at + 1}\tx\t0\t+\n" for at in range(250, 4900, 150)))
    return genome, sites


def test_a_genome_too_small_for_promoters_is_enough_with_the_settings_that_are_named(
    annotated: tuple[Path, Path],
) -> None:
    data = FinetuneData(tss_distance=20)
    with pytest.raises(UserError, match="no whole window is left") as caught:
        promoter_genome(*annotated, data, 0)
    mended = smaller(data, str(caught.value.fix), 20)
    assert (mended.upstream, mended.downstream) == (20, 20)
    assert promoter_genome(*annotated, mended, 0).window == 41


def test_negatives_find_room_with_the_settings_that_are_named(annotated: tuple[Path, Path]) -> None:
    data = FinetuneData(upstream=20, downstream=20)
    with pytest.raises(UserError, match="not enough room") as caught:
        promoter_genome(*annotated, data, 0)
    assert "smaller distance than 1,000" in str(caught.value.fix)
    assert promoter_genome(*annotated, smaller(data, str(caught.value.fix), 20), 0).window == 41


def test_a_start_site_without_a_strand_is_told_before_the_size_of_the_genome(annotated: tuple[Path, Path]) -> None:
    genome, sites = annotated
    sites.write_text("chr1\t2000\t2001\n")
    with pytest.raises(UserError, match="has no strand") as caught:
        promoter_genome(genome, sites, FinetuneData(), 0)
    assert "--strand plus" in str(caught.value.fix)
    with pytest.raises(UserError, match="no whole window is left"):
        promoter_genome(genome, sites, FinetuneData(strand="plus"), 0)


def test_a_genome_too_small_for_a_window_is_enough_for_a_smaller_one(
    write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]
) -> None:
    classes = {name: [write_fasta({"r": make_bases(4000, i), "none": "", "gap": "N" * 9}, f"{name}.fa")]
               for i, name in enumerate("ab")}  # fmt: skip
    data = FinetuneData(window=1000)
    with pytest.raises(UserError, match="no whole window is left") as caught:
        species_data(classes, data)
    made = species_data(classes, smaller(data, str(caught.value.fix), 64))
    assert made.window == 64
    assert made.warnings == tuple(
        f"in {name}.fa, 2 records have no known base, from which nothing is learnt: none, gap" for name in "ab"
    )


def test_a_column_of_another_name_is_read_with_the_option_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("oligo,label\nACGT,1\n")
    with pytest.raises(UserError, match="lacks the column sequence") as caught:
        read_table(path)
    assert "--sequence-column NAME" in str(caught.value.fix)
    assert len(read_table(path, sequence_column="oligo")) == 1
