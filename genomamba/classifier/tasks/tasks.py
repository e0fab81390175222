"""Labelled sequences from tables to one `LabelledData`: split, without leaks, cut to the window."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import SPLITS, Examples, LabelledData, PackedSequences, SequenceSource, canonical
from genomamba.classifier.tasks.labelled_tables import TableRow, read_table
from genomamba.classifier.tasks.near_copies import near_copies
from mamba_data_prep.errors import UserError

MAX_CLASSES = 1000
AUTO_WINDOW_LIMIT = 65_536


def table_data(
    tables: Sequence[Path],
    data: FinetuneData,
    *,
    valid: Path | None = None,
    test: Path | None = None,
    seed: int = 0,
) -> LabelledData:
    """Labelled sequences from tables, or from one a split.

    Rows without a given split are split class by class in the order of a hash of their sequence, so equal sequences and
    their reverse complements stay together. A training row whose sequence (or reverse complement) is also held out is
    dropped, and said.

    Raises:
        UserError: a broken row, a single class, or a class missing from training.
    """
    rows = table_rows(tables, data, valid=valid, test=test)
    classes = _classes(rows)  # labels that are no classes are refused before rows are dealt by them
    named = {"table": [str(t) for t in tables], "valid": valid and str(valid), "test": test and str(test)}
    return labelled_rows(rows, data, {"task": "table", **named}, split_rows(rows, data, seed), classes=classes)


def table_rows(
    tables: Sequence[Path], data: FinetuneData, *, valid: Path | None = None, test: Path | None = None
) -> list[TableRow]:
    """The rows of all of a run's tables, in the order given, before any of them is split or left out.

    Raises:
        UserError: a broken row, or a column of splits beside tables of their own for these.
    """
    given = valid is not None or test is not None
    columns = data.sequence_column, data.label_column
    rows = [row for table in tables for row in read_table(table, "train" if given else None, *columns)]
    if given and any(row.split != "train" for row in rows):
        raise UserError(
            "the table has a split column, and --valid or --test was given too", path=tables[0],
            fix="remove the column, or leave --valid and --test out",
        )  # fmt: skip
    rows += read_table(valid, "valid", *columns) if valid is not None else []
    return rows + (read_table(test, "test", *columns) if test is not None else [])


@dataclass(frozen=True, eq=False)
class SplitRows:
    """How the rows of tables are split.

    Attributes:
        splits: text (rows,), train, valid or test.
        keep: bool (rows,), False for a row that is left out because a held-out row has its sequence.
        how: the rule, in words.
        warnings: sentences a person should read.
    """

    splits: np.ndarray
    keep: np.ndarray
    how: str
    warnings: tuple[str, ...]


def split_rows(
    rows: list[TableRow], data: FinetuneData, seed: int, together: Sequence[bytes] | None = None
) -> SplitRows:
    """Gives each row its split, and leaves out training rows whose sequence is held out.

    Args:
        rows: labelled sequences, with the splits that are given.
        data: which shares are held out of rows without a split.
        seed: of the order in which these are held out.
        together: of each row what it has in common with rows that are to stay in one split with it; by default its
            sequence, on either strand.

    Raises:
        UserError: a class is too rare, or no row is left for training.
    """
    keys = [hashlib.blake2b(canonical(row.bases), digest_size=16).digest() for row in rows]
    splits, how = _splits(rows, keys if together is None else together, data, seed)
    keep, leaks = _without_leaks(rows, keys, splits)
    return SplitRows(splits, keep, how, tuple(leaks))


def labelled_rows(
    rows: list[TableRow],
    data: FinetuneData,
    description: dict[str, object],
    made: SplitRows,
    *,
    classes: tuple[str, ...] | None = None,
    left_out: Sequence[str] = (),
    source_of: Callable[[int], SequenceSource] | None = None,
) -> LabelledData:
    """Checks the classes of rows that are split, and cuts the sequences to the window.

    Args:
        rows: labelled sequences.
        data: settings.
        description: how the data was made.
        made: the splits.
        classes: names, in the order of the labels; by default those of the rows, sorted.
        left_out: sentences on what was left out before.
        source_of: gives the sequences of all rows, each cut to the middle of a window; by default they are packed.

    Raises:
        UserError: there is a single class, or a class is missing from a split.
    """
    classes = classes or _classes(rows)
    splits, keep = made.splits, made.keep
    warnings = [*left_out, *made.warnings, *near_copies(rows, keep, splits)]
    window, cut = _window(rows, data)
    labels = np.array([classes.index(row.label) for row in rows], np.int64)
    source = _packed(rows, window) if source_of is None else source_of(window)
    chosen = {name: np.flatnonzero(keep & (splits == name)).astype(np.int64) for name in SPLITS}
    parts = {name: Examples(source, index, labels[index]) for name, index in chosen.items()}
    labelled = LabelledData(
        classes=classes,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        window=window,
        stranded=True,
        description={**description, "split": made.how, "dropped_for_leakage": int((~keep).sum())},
        warnings=tuple(warnings + cut),
    )
    return checked(labelled, rows[0].path)


def _packed(rows: list[TableRow], window: int) -> SequenceSource:
    return PackedSequences.pack([centre(row.bases, window) for row in rows])


def _classes(rows: list[TableRow]) -> tuple[str, ...]:
    names = {row.label for row in rows}
    if len(names) < 2:
        raise UserError(
            "the table has a single class", path=rows[0].path, found=f"label {rows[0].label!r} on every row",
            accepted="at least two labels", fix="add sequences of another class",
        )  # fmt: skip
    if len(names) > min(MAX_CLASSES, len(rows) // 2):
        raise UserError(
            "there are nearly as many labels as rows", path=rows[0].path, found=f"{len(names):,} labels",
            accepted=f"classes, at most {MAX_CLASSES}, each on several rows", fix="group measured values into classes",
        )  # fmt: skip
    numeric = all(name.lstrip("-").isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else (0, name)))


def _splits(rows: list[TableRow], keys: Sequence[bytes], data: FinetuneData, seed: int) -> tuple[np.ndarray, str]:
    """The split of each row; those a table does not give are carved out of its training rows by hash."""
    given = {row.split for row in rows if row.split is not None}
    missing = [name for name in ("valid", "test") if name not in given]
    if given and "train" not in given:
        raise UserError("no row is in the train split", path=rows[0].path, found=", ".join(sorted(given)))
    shares = {"valid": data.valid_fraction, "test": data.test_fraction}
    splits = np.array([row.split or "train" for row in rows], dtype="U5")
    free = {key: row for row, key, split in zip(rows, keys, splits, strict=True) if split == "train"}
    drawn = _drawn(free, seed, {name: shares[name] for name in missing}) if missing else {}
    for index, key in enumerate(keys):
        if splits[index] == "train":  # what is given for testing stays there, a copy in train or not
            splits[index] = drawn.get(key, "train")
    if not given:
        return splits, "by a hash of each sequence within its class, both strands alike"
    return splits, "as given" + (f"; {' and '.join(missing)} taken from train by hash" if missing else "")


def _drawn(free: dict[bytes, TableRow], seed: int, shares: dict[str, float]) -> dict[bytes, str]:
    """The held-out keys and their splits: in each class the shares asked for, in the order of the keys' hashes.

    Raises:
        UserError: a class has too few different sequences for one in each split.
    """
    salt = seed.to_bytes(8, "little")
    of_class: dict[str, list[bytes]] = {}
    for key, row in free.items():
        of_class.setdefault(row.label, []).append(key)
    drawn: dict[bytes, str] = {}
    for label, keys in of_class.items():
        if len(keys) <= len(shares):
            raise _too_rare(label, keys, free, shares)
        keys.sort(key=lambda key: hashlib.blake2b(key, digest_size=8, salt=salt).digest())
        first = 0
        for name, share in shares.items():
            count = max(round(share * len(keys)), 1)
            drawn |= dict.fromkeys(keys[first : first + count], name)
            first += count
    return drawn


def _too_rare(label: str, keys: list[bytes], free: dict[bytes, TableRow], shares: dict[str, float]) -> UserError:
    row = free[keys[0]]
    return UserError(
        f"class {label} is too rare to be trained and scored", path=row.path, line=row.line,
        found=f"{len(keys)} different sequence{'s' if len(keys) > 1 else ''}, both strands counted as one",
        accepted=f"{len(shares) + 1} or more: at least one each in train, {' and '.join(shares)}",
        fix=f"add sequences of class {label}, remove its rows, or join it with another class",
    )  # fmt: skip


def _without_leaks(rows: list[TableRow], keys: list[bytes], splits: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Keeps each sequence in one split only: test wins over valid, and valid over train."""
    rank = {"train": 0, "valid": 1, "test": 2}
    highest: dict[bytes, int] = {}
    for key, split in zip(keys, splits, strict=True):
        highest[key] = max(highest.get(key, 0), rank[str(split)])
    keep = np.array([rank[str(split)] == highest[key] for key, split in zip(keys, splits, strict=True)])
    warnings = []
    if not keep.all():
        lost = [f"{row.path.name} line {row.line:,}" for row, kept in zip(rows, keep, strict=True) if not kept]
        shown = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        warnings.append(
            f"{len(lost):,} rows hold a sequence (or its reverse complement) that is also in a split held out "
            f"later, and were dropped so that nothing leaks: {shown}"
        )
    labels: dict[bytes, str] = {}
    clash = [row for row, key in zip(rows, keys, strict=True) if labels.setdefault(key, row.label) != row.label]
    if clash:
        first = f"{clash[0].path.name} line {clash[0].line:,}"
        warnings.append(
            f"{len(clash):,} rows repeat a sequence (or its reverse complement) with another label: {first}"
        )
    return keep, warnings


def _window(rows: list[TableRow], data: FinetuneData) -> tuple[int, list[str]]:
    longest = max(len(row.bases) for row in rows)
    window = min(longest, AUTO_WINDOW_LIMIT) if data.window == "auto" else data.window
    cut = sum(len(row.bases) > window for row in rows)
    said = f"{cut:,} sequences are longer than the window of {window:,} and were cut to their middle"
    return window, [said] if cut else []


def centre(bases: np.ndarray, window: int) -> np.ndarray:
    """The middle `window` bases of a sequence, or all of a shorter one."""
    start = max(len(bases) - window, 0) // 2
    return bases[start : start + window]


def checked(made: LabelledData, path: Path) -> LabelledData:
    """Refuses data that cannot be trained or scored on; says which classes a split lacks."""
    warnings = list(made.warnings)
    for split, counts in made.counts().items():
        absent = [name for name, count in counts.items() if count == 0]
        if absent and (split == "train" or len(absent) == len(counts)):
            raise UserError(
                f"the {split} split holds no example of class {', '.join(absent[:5])}",
                path=path,
                found=", ".join(f"{name} {count:,}" for name, count in counts.items()),
                fix="give more sequences, or another split",
            )
        if absent:
            warnings.append(f"the {split} split holds no example of class {', '.join(absent)}")
    return replace(made, warnings=tuple(warnings))


def class_balance(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights (C,) inversely proportional to class frequency, with mean one over the examples."""
    counts = np.maximum(np.bincount(labels, minlength=n_classes), 1)
    return (len(labels) / (n_classes * counts)).astype(np.float32)


def named_files(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Groups `NAME=FASTA` texts by name, in the order of first mention.

    Raises:
        UserError: a text is not of this form.
    """
    grouped: dict[str, list[Path]] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name.strip() or not path:
            raise UserError("--class needs NAME=FASTA", found=text, accepted="for example --class human=human.fa.gz")
        grouped.setdefault(name.strip(), []).append(Path(path))
    return grouped
