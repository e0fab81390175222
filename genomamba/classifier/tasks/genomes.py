"""Fine-tuning tasks cut out of genomes: species from windows of several genomes, promoters from start sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import SPLITS, Examples, LabelledData
from genomamba.classifier.tasks.labelled_tables import TableRow
from genomamba.classifier.tasks.stretches import GAP_FRACTION, Section, Stretches, cut_sections
from genomamba.classifier.tasks.tasks import checked, labelled_rows, split_rows
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.genomes.genome import Genome, records_without_bases
from mamba_data_prep.genomes.gtf import read_tss
from mamba_data_prep.genomes.intervals import Interval
from mamba_data_prep.genomes.windows import tile

MAX_SPECIES_WINDOW = 4096


def species_data(classes: Mapping[str, Sequence[Path]], data: FinetuneData) -> LabelledData:
    """Windows of each class's genomes; every genome is cut into splits at the same fractional positions.

    Case is folded, windows with more than `max_n_fraction` unknown bases are left out, and each class is thinned to the
    size of the smallest, split by split, so that neither gaps, masking nor abundance gives a class away.

    Raises:
        UserError: fewer than two classes, the same file twice, or a genome too short for the window.
    """
    _check_classes(classes)
    owner = np.array([label for label, paths in enumerate(classes.values()) for _ in paths], np.int64)
    genomes = [Genome.open(path) for paths in classes.values() for path in paths]
    window = _species_window(genomes, data)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for number, genome in enumerate(genomes):
        sections = cut_sections(genome.lengths.tolist(), window, data.valid_fraction, data.test_fraction, gap=data.gap)
        for name in SPLITS:
            parts[name].append(_section_windows(genome, number, sections, name, window, data))
    rows = np.concatenate([part for name in SPLITS for part in parts[name]])
    split = np.repeat(np.arange(3), [sum(map(len, parts[name])) for name in SPLITS])
    labels = owner[rows[:, 0]]
    source = Stretches(tuple(genomes), rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], np.zeros(len(rows), bool))
    train, valid, test = (
        _levelled(source, np.flatnonzero(split == i), labels, len(classes), data.max_per_class) for i in range(3)
    )
    described = {
        "task": "species",
        "files": {name: [str(path) for path in paths] for name, paths in classes.items()},
        "split": "train, valid and test at the same fractional positions of every genome",
        "gap": max(window, data.gap or round(GAP_FRACTION * max(int(g.lengths.sum()) for g in genomes))),
        "window": window,
    }
    made = LabelledData(
        tuple(classes), train, valid, test, window=window, stranded=False, genomes=tuple(genomes),
        description=described, warnings=tuple(filter(None, map(records_without_bases, genomes))),
    )  # fmt: skip
    return checked(made, genomes[0].path)


def _species_window(genomes: Sequence[Genome], data: FinetuneData) -> int:
    """The window that was asked for; otherwise 4,096 bases, or less where that would hold out fewer than 64 windows."""
    if data.window != "auto":
        return data.window
    held_out = min(int(g.lengths.sum()) for g in genomes) * min(data.valid_fraction, data.test_fraction)
    return 2 ** int(np.clip(np.log2(max(held_out / 64, 1)), 6, np.log2(MAX_SPECIES_WINDOW)))


def _check_classes(classes: Mapping[str, Sequence[Path]]) -> None:
    if len(classes) < 2:
        raise UserError(
            "at least two classes are needed", found=", ".join(classes), accepted="--class NAME=FASTA twice or more",
            fix="add --class NAME=FASTA with sequence of another class",
        )  # fmt: skip
    seen: dict[Path, str] = {}
    for name, paths in classes.items():
        for path in paths:
            other = seen.setdefault(path.resolve(), name)
            if other != name or list(paths).count(path) > 1:
                raise UserError(
                    "the same file is given twice", path=path, found=f"classes {other} and {name}",
                    fix="give each class files of its own, each once",
                )  # fmt: skip


def _section_windows(
    genome: Genome, number: int, sections: Sequence[Section], split: str, window: int, data: FinetuneData
) -> np.ndarray:
    """Rows (genome, record, start, end) of one split of one genome; held-out windows never overlap."""
    names = [record.name for record in genome.records]
    regions = [Interval(names[s.record], s.start, s.end) for s in sections if s.split == split]
    stride = data.stride if split == "train" else None
    table = tile(genome, window, stride, regions=regions, max_n_fraction=data.max_n_fraction, last="drop")
    if not len(table):
        raise UserError(
            f"the {split} split of this genome holds no window", path=genome.path,
            found=f"every window has more than {data.max_n_fraction:.0%} unknown bases",
            fix="take a smaller window, or allow more with --set data.max_n_fraction=0.1",
        )  # fmt: skip
    return np.stack([np.full(len(table), number), table.record, table.start, table.end], 1).astype(np.int64)


def _levelled(source: Stretches, rows: np.ndarray, labels: np.ndarray, n_classes: int, limit: int | None) -> Examples:
    """The same number of windows of every class, taken at even distances along the genome."""
    counts = np.bincount(labels[rows], minlength=n_classes)
    keep = min(int(counts.min()), limit or int(counts.min()))
    chosen = []
    for label in range(n_classes):
        own = rows[labels[rows] == label]
        chosen.append(own[np.linspace(0, len(own) - 1, keep).round().astype(np.int64)])
    index = np.concatenate(chosen)
    return Examples(source, index, labels[index])


def promoter_files(positive: Path, negative: Path, data: FinetuneData, seed: int) -> LabelledData:
    """Promoters and other sequences from two FASTA files, split by a hash of each sequence.

    Raises:
        UserError: a file is not FASTA, or holds a record longer than 2^20 bases.
    """
    found = [
        TableRow(piece.sequence, label, None, path, piece.line)
        for path, label in ((negative, "other"), (positive, "promoter"))
        for piece in stream_fasta(path, unique_ids=False)
        if _is_whole(piece.offset, piece.is_last, path, piece.line)
    ]
    rows = [row for row in found if len(row.bases)]
    empty = [f"{row.path.name} line {row.line:,}" for row in found if not len(row.bases)]
    shown = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
    left_out = [f"{len(empty):,} records have no bases and were left out: {shown}"] if empty else []
    named: dict[str, object] = {"task": "promoter", "positive": str(positive), "negative": str(negative)}
    made = split_rows(rows, data, seed)
    return labelled_rows(rows, data, named, made, classes=("other", "promoter"), left_out=left_out)


def _is_whole(offset: int, is_last: bool, path: Path, line: int) -> bool:
    if offset or not is_last:
        raise UserError(
            "the record is longer than a promoter", path=path, line=line, accepted="up to 2^20 bases a record",
            fix="cut genomes by start sites with --fasta and --tss",
        )  # fmt: skip
    return True


def promoter_genome(fasta: Path, tss: Path, data: FinetuneData, seed: int) -> LabelledData:
    """Promoters around start sites (-249..+50 by default) and as many stretches away from all of them.

    Negatives have the same length, no unknown bases, either strand, and come from the same sections of the genome as
    the promoters they are trained or tested beside.

    Raises:
        UserError: no usable start site, one without a strand, or no room for negatives.
    """
    genome = Genome.open(fasta)
    window = data.upstream + 1 + data.downstream
    record, site, minus = start_sites(genome, tss, data.strand)
    sections = cut_sections(
        genome.lengths.tolist(), window, data.valid_fraction, data.test_fraction, gap=data.gap,
        smaller="--set data.upstream=N --set data.downstream=N",
    )  # fmt: skip
    start = np.where(minus, site - data.downstream, site - data.upstream)
    end = start + window
    inside = (start >= 0) & (end <= genome.lengths[record])
    positives = np.stack([np.zeros_like(record), record, start, end, minus], 1)[inside]
    positives = _without_n(genome, positives)
    rng = np.random.default_rng(seed)
    parts, rows, labels = {}, [], []
    for name in SPLITS:
        own = [s for s in sections if s.split == name]
        good = np.unique(positives[_within(positives, own)], axis=0)
        bad = _negatives(genome, own, record, site, window, round(len(good) * data.negatives), data, rng)
        first = sum(map(len, rows))
        rows += [bad, good]
        labels += [np.zeros(len(bad), np.int64), np.ones(len(good), np.int64)]
        parts[name] = np.arange(first, first + len(bad) + len(good))
    table, label = np.concatenate(rows), np.concatenate(labels)
    source = Stretches((genome,), table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4].astype(bool))
    described = {
        "task": "promoter", "fasta": str(fasta), "tss": str(tss), "window": window,
        "positives": f"-{data.upstream}..+{data.downstream} around {len(positives):,} start sites",
        "negatives": f"at least {data.tss_distance:,} bases from every start site, either strand",
        "split": "by sections of the genome, a gap at every border",
    }  # fmt: skip
    made = LabelledData(
        ("other", "promoter"), *(Examples(source, parts[n], label[parts[n]]) for n in SPLITS), window=window,
        stranded=True, genomes=(genome,), description=described,
        warnings=tuple(filter(None, [records_without_bases(genome)])),
    )  # fmt: skip
    return checked(made, tss)


def start_sites(
    genome: Genome, path: Path, strand: Literal["plus", "minus"] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Record number, 0-based position and minus-strand flag of each distinct start site in a BED or GTF file.

    Raises:
        UserError: a site names no strand, and `strand` does not either.
    """
    found = {(genome.number_of(site.name), site.start, site.strand == "-") for site in read_tss(path, genome, strand)}
    table = np.array(sorted(found), np.int64)
    return table[:, 0], table[:, 1], table[:, 2].astype(bool)


def _without_n(genome: Genome, rows: np.ndarray) -> np.ndarray:
    return rows[genome.unknown_counts(rows[:, 1], rows[:, 2], rows[:, 3]) == 0]


def _within(rows: np.ndarray, sections: Sequence[Section]) -> np.ndarray:
    """Tells which rows lie wholly in one of the sections; bool (rows,)."""
    inside = np.zeros(len(rows), bool)
    for s in sections:
        inside |= (rows[:, 1] == s.record) & (rows[:, 2] >= s.start) & (rows[:, 3] <= s.end)
    return inside


def _negatives(
    genome: Genome, sections: Sequence[Section], record: np.ndarray, site: np.ndarray, window: int, wanted: int,
    data: FinetuneData, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Rows of stretches without N, `tss_distance` away from every start site, drawn evenly over the sections."""
    room = np.array([s.end - s.start - window + 1 for s in sections], np.float64)
    starts = np.concatenate([[0], np.cumsum(genome.lengths)])
    sites = np.sort(starts[record] + site)
    kept = np.zeros((0, 5), np.int64)
    for _ in range(20):
        if len(kept) >= wanted:
            break
        which = rng.choice(len(sections), size=2 * wanted + 16, p=room / room.sum())
        first = np.array([sections[i].start for i in which]) + (rng.random(len(which)) * room[which]).astype(np.int64)
        numbers = np.array([sections[i].record for i in which])
        place = starts[numbers] + first
        after = np.searchsorted(sites, place + window + data.tss_distance)
        clear = after == np.searchsorted(sites, place - data.tss_distance)
        strand = rng.integers(0, 2, len(which))
        rows = np.stack([np.zeros_like(numbers), numbers, first, first + window, strand], 1)[clear]
        kept = np.unique(np.concatenate([kept, _without_n(genome, rows)]), axis=0)
        kept = kept[rng.permutation(len(kept))]
    if len(kept) < wanted:
        raise UserError(
            "there is not enough room away from start sites for negatives", path=genome.path,
            found=f"{len(kept):,} of {wanted:,}",
            fix=f"give a smaller distance than {data.tss_distance:,} (--set data.tss_distance=N), or fewer negatives "
            "(--set data.negatives=0.5)",
        )  # fmt: skip
    return kept[:wanted]
