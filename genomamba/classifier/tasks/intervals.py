"""Labelled intervals of genomes: the official split or one by chromosome, and what the splits share in the genome."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.classifier.tasks.labelled_tables import TableRow
from genomamba.classifier.tasks.stretches import Stretches
from genomamba.classifier.tasks.tasks import SplitRows, labelled_rows, named_files, split_rows
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval, within
from mamba_data_prep.genomes.splits import clusters, near, shared_bases
from mamba_data_prep.genomes.windows import WindowTable

_ROOM = 1.25
"""A held-out split is filled with whole chromosomes up to so many times its share."""


@dataclass(frozen=True, eq=False)
class PlacedRows:
    """Labelled sequences, and where in which genome each lies.

    Attributes:
        rows: the sequences, each read on its interval's strand, with the splits of their folder.
        places: the same as stretches of the genomes, in the same order.
        stranded: whether every interval names a strand; those that name none are read from the plus strand.
    """

    rows: list[TableRow]
    places: Stretches
    stranded: bool

    @classmethod
    def read(cls, folder: IntervalFolder, fasta: Mapping[str, Path]) -> PlacedRows:
        """Reads a folder's sequences from the genomes.

        Args:
            folder: of labelled intervals.
            fasta: class -> genome of its intervals.

        Raises:
            UserError: an interval does not fit its genome; its file and line are named.
        """
        found = list(folder.intervals())
        files = list(dict.fromkeys(path.resolve() for path in fasta.values()))
        named = {path.resolve(): path for path in fasta.values()}
        genomes = tuple(Genome.open(named[path]) for path in files)
        own = np.array([files.index(fasta[str(interval.label)].resolve()) for _, interval in found], np.int64)
        placed: list[Interval] = [interval for _, interval in found]
        for number, genome in enumerate(genomes):
            chosen = np.flatnonzero(own == number).tolist()
            for index, interval in zip(chosen, within(genome, [placed[i] for i in chosen]), strict=True):
                placed[index] = interval
        numbers = zip(own.tolist(), placed, strict=True)
        record = np.array([genomes[number].number_of(one.name) for number, one in numbers], np.int64)
        start, end = (np.array([getattr(one, name) for one in placed], np.int64) for name in ("start", "end"))
        minus = np.array([one.strand == "-" for one in placed], bool)
        places = Stretches(genomes, own, record, start, end, minus)
        rows = [
            TableRow(places.fetch(i), str(one.label), split, Path(str(one.path)), int(one.line or 0))
            for i, ((split, _), one) in enumerate(zip(found, placed, strict=True))
        ]
        return cls(rows, places, all(one.strand != "." for one in placed))

    @property
    def table(self) -> WindowTable:
        """The intervals with records numbered through all genomes."""
        before = np.cumsum([0, *(len(genome) for genome in self.places.genomes)])
        record = (before[self.places.genome] + self.places.record).astype(np.int32)
        return WindowTable(record, self.places.start, self.places.end)

    def cut(self, window: int) -> Stretches:
        """The middle `window` bases of each sequence, or all of a shorter one; see `tasks.centre`."""
        spare = np.maximum(self.places.lengths() - window, 0)
        first = spare // 2
        left = np.where(self.places.minus, spare - first, first)
        start = self.places.start + left
        return replace(self.places, start=start, end=self.places.end - (spare - left))

    def clusters(self) -> list[bytes]:
        """The same for intervals that overlap or touch, directly or through others."""
        return [int(one).to_bytes(8, "little") for one in clusters(self.table)]


def class_genomes(folder: IntervalFolder, fasta: Path | None, classes: Sequence[str]) -> dict[str, Path]:
    """The genome of each class.

    Args:
        folder: of labelled intervals.
        fasta: the genome of all classes that `classes` does not name.
        classes: `NAME=FASTA` texts.

    Raises:
        UserError: a class is unknown or has no genome, or classes of several genomes would get the same one.
    """
    own = named_files(classes)
    for name, paths in own.items():
        if name not in folder.classes or len(paths) > 1:
            problem = "this class has two genomes" if name in folder.classes else "the folder has no such class"
            raise UserError(problem, path=folder.path, found=name, accepted=", ".join(folder.classes))
    rest = [name for name in folder.classes if name not in own]
    if rest and fasta is None:
        raise UserError(
            "a class has no genome", path=folder.path, found=rest[0],
            accepted="--fasta GENOME for all classes, or --class NAME=GENOME for each",
            fix=f"--class {rest[0]}={folder.genomes.get(rest[0], 'GENOME')}",
        )  # fmt: skip
    several = sorted({folder.genomes[name] for name in rest if name in folder.genomes})
    if len(several) > 1:
        other = next(name for name in rest if folder.genomes.get(name) == several[1])
        raise UserError(
            "the classes lie in different genomes", path=folder.path / "metadata.yaml", found=", ".join(several),
            accepted="--class NAME=GENOME for each class", fix=f"--class {other}={several[1]}",
        )  # fmt: skip
    return {name: own[name][0] if name in own else Path(str(fasta)) for name in folder.classes}


def interval_data(folder: IntervalFolder, fasta: Mapping[str, Path], data: FinetuneData, seed: int) -> LabelledData:
    """Labelled intervals, split as their folder says or by chromosome, read from the genomes when they are asked for.

    Args:
        folder: of labelled intervals.
        fasta: class -> genome of its intervals.
        data: settings.
        seed: of what is dealt by chance.

    Raises:
        UserError: an interval does not fit its genome, there is a single class, or too few chromosomes.
    """
    placed = PlacedRows.read(folder, fasta)
    rows, made = split_intervals(placed, data, seed)
    described: dict[str, object] = {
        "task": "intervals", "intervals": str(folder.path),
        "genomes": {name: str(path) for name, path in fasta.items()}, "genomes_of_metadata": dict(folder.genomes),
    }  # fmt: skip
    labelled = labelled_rows(rows, data, described, made, source_of=placed.cut)
    shared, said = _shared(placed, labelled)
    return replace(
        labelled, stranded=placed.stranded, genomes=placed.places.genomes,
        description={**labelled.description, "shared_with_training": shared},
        warnings=(*labelled.warnings, *([said] if said else [])),
    )  # fmt: skip


def split_intervals(placed: PlacedRows, data: FinetuneData, seed: int) -> tuple[list[TableRow], SplitRows]:
    """The rows with their splits.

    Of the official split, test is as the folder has it, and so is valid, if there is one; otherwise validation is taken
    from train, intervals that overlap together.

    Raises:
        UserError: there are too few chromosomes, or one that is to be held out has no interval.
    """
    if data.split == "official":
        made = split_rows(placed.rows, data, seed, placed.clusters())
        return placed.rows, replace(made, how=f"{made.how}, overlapping intervals together")
    split_of, how = _by_chromosome(placed, data, seed)
    rows = [replace(row, split=split) for row, split in zip(placed.rows, split_of, strict=True)]
    return rows, replace(split_rows(rows, data, seed), how=how)


def _by_chromosome(placed: PlacedRows, data: FinetuneData, seed: int) -> tuple[list[str], str]:
    """The split of each row, and which chromosomes are held out; of several genomes each has its own."""
    asked = {
        "test": (data.test_chromosomes, data.test_fraction), "valid": (data.valid_chromosomes, data.valid_fraction)
    }  # fmt: skip
    for name in (name for names, _ in asked.values() for name in names or ()):
        if not any(_named(genome, [name]) for genome in placed.places.genomes):
            raise UserError(
                "no genome has the chromosome that is to be held out", path=placed.places.genomes[0].path, found=name,
                accepted=placed.places.genomes[0].some_names(),
                fix="correct data.test_chromosomes or data.valid_chromosomes",
            )  # fmt: skip
    held: dict[str, list[str]] = {"test": [], "valid": []}
    split = np.full(len(placed.rows), "train", "U5")
    for number, genome in enumerate(placed.places.genomes):
        own = placed.places.genome == number
        records, counts = np.unique(placed.places.record[own], return_counts=True)
        free = {genome.records[n].name: int(count) for n, count in zip(records.tolist(), counts.tolist(), strict=True)}
        named = {part: [one for one in _named(genome, names) if one in free] for part, (names, _) in asked.items()}
        for part, (names, share) in asked.items():
            others = {name: n for name, n in free.items() if not any(name in one for one in named.values())}
            chosen = named[part] if names is not None else _dealt(others, share * own.sum(), seed)
            free = {name: n for name, n in free.items() if name not in chosen}
            held[part] += chosen
            split[own & np.isin(placed.places.record, [genome.number_of(name) for name in chosen])] = part
        if not free or not all(held.values()):
            raise UserError(
                "there are too few chromosomes to split by", path=genome.path, found=f"intervals on {len(records)}",
                accepted="three or more: one at least each for train, valid and test",
                fix="leave --split chromosomes out, or hold out fewer",
            )  # fmt: skip
    words = "; ".join(f"{part} {', '.join(own[:8])}{', ...' if len(own) > 8 else ''}" for part, own in held.items())
    return split.tolist(), f"by chromosome: {words}; train all others"


def _named(genome: Genome, names: Sequence[str] | None) -> list[str]:
    """The chromosomes that are asked for, under the genome's own names, as far as it has them."""
    return [genome.records[n].name for name in names or () if (n := genome.find(name)) is not None]


def _dealt(counts: Mapping[str, int], wanted: float, seed: int) -> list[str]:
    """Chromosomes that together have about as many intervals as are wanted, in the order of their names' hashes."""
    salt = seed.to_bytes(8, "little")

    def place(name: str) -> bytes:
        return hashlib.blake2b(name.removeprefix("chr").encode(), digest_size=8, salt=salt).digest()

    chosen, total = [], 0
    for name in sorted(counts, key=place):
        if total < wanted and total + counts[name] <= _ROOM * wanted:
            chosen.append(name)
            total += counts[name]
    return chosen or sorted(counts, key=lambda name: counts[name])[:1]


def shared_with_training(
    test: WindowTable, test_labels: np.ndarray, training: WindowTable, training_labels: np.ndarray
) -> dict[str, int]:
    """How many test intervals overlap training intervals in the genome.

    Args:
        test: intervals (M,), records numbered through all genomes.
        test_labels: class index of each, (M,).
        training: the same of what was trained and validated on, (N,).
        training_labels: (N,).

    Returns:
        `of` so many test intervals: `overlapping` by a base or more, `by_half_or_more` of their own bases, and
        `another_class`, those that overlap an interval of another class.
    """
    bases = shared_bases(test, [training])
    other = 0
    for label in np.unique(test_labels[bases > 0]).tolist():
        theirs = training.select(training_labels != label)
        other += int(near(test.select((bases > 0) & (test_labels == label)), [theirs]).sum())
    half = int((2 * bases >= test.end - test.start).sum())
    return {"of": len(test), "overlapping": int((bases > 0).sum()), "by_half_or_more": half, "another_class": other}


def _shared(placed: PlacedRows, labelled: LabelledData) -> tuple[dict[str, int], str | None]:
    """What `shared_with_training` finds, and the same as a sentence."""
    table, test, before = placed.table, labelled.test, (labelled.train, labelled.valid)
    rows, labels = (np.concatenate([getattr(part, name) for part in before]) for name in ("rows", "labels"))
    counts = shared_with_training(table.select(test.rows), test.labels, table.select(rows), labels)
    if not counts["overlapping"]:
        return counts, None
    return counts, (
        f"{counts['overlapping']:,} of {len(test):,} test intervals overlap one of train or valid in the genome, "
        f"{counts['by_half_or_more']:,} by half of their bases or more, {counts['another_class']:,} one of another "
        "class: scores on them say little of new sequences; --split chromosomes keeps such intervals together"
    )
