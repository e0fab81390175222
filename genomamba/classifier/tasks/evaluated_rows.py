"""Which rows of a table, or windows of FASTA files, a classifier is scored on, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genomamba import tokens
from genomamba.classifier.examples import Examples
from genomamba.classifier.network import ClassifierConfig
from genomamba.classifier.read_before import ReadShare
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.classifier.tasks.intervals import PlacedRows
from genomamba.classifier.tasks.labelled_tables import SPLIT_NAMES, TableRow, read_table
from genomamba.classifier.tasks.of_run import TrainedOn
from genomamba.classifier.tasks.tasks import centre
from genomamba.prediction.record_windows import record_windows
from genomamba.prediction.stretches import record_stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import stream_fasta

_ACCEPTED = "train, valid, test or all"


@dataclass(frozen=True, eq=False)
class EvaluatedRows:
    """The rows or files that are scored, and what is to be said of them.

    Attributes:
        rows: rows of a table, examples that a run made, or class -> FASTA files, of which every window is meant.
        split: train, valid, test or all.
        seen_in_training: whether the model was trained on these files.
        said: the same in words.
    """

    rows: list[TableRow] | Examples | Mapping[str, Sequence[Path]]
    split: str
    seen_in_training: bool
    said: str

    def pairs(self, config: ClassifierConfig, share: ReadShare | None = None) -> Iterator[tuple[np.ndarray, int]]:
        """Token ids, uint8 of at most the model's window, and class index of each example.

        Args:
            config: the model's.
            share: adds up how much of the examples the model has read in training.

        Raises:
            UserError: a label is none of the model's classes.
        """
        share = share or ReadShare(None)
        if isinstance(self.rows, Examples):
            share.examples(self.rows)
            for index, label in enumerate(self.rows.labels.tolist()):
                yield tokens.encode(self.rows.fetch(index)), label
        elif isinstance(self.rows, Mapping):
            for name, paths in self.rows.items():
                for path in paths:
                    yield from ((ids, config.classes.index(name)) for ids in _windows(path, config.window, share))
        else:
            _check_labels(self.rows, config)
            for row in self.rows:
                bases = centre(row.bases, config.window)
                share.sequence(bases)
                yield tokens.encode(bases), config.classes.index(row.label)


def chosen_rows(
    table: Path,
    trained_on: TrainedOn,
    split: str | None,
    sequence_column: str | None = None,
    label_column: str | None = None,
) -> EvaluatedRows:
    """The rows of a table that are asked for.

    Args:
        table: sequence, label[, split].
        trained_on: the files of the model's training.
        split: train, valid, test, all, or None for the test split where there is one and otherwise all.
        sequence_column, label_column: the columns' names; as in training, where the model was trained on this table.

    Raises:
        UserError: the table is broken, has no such split, or its splits cannot be made again.
    """
    wanted = _split_name(split)
    known = trained_on.known([table])
    own = trained_on.data if known else None
    names = sequence_column or (own and own.sequence_column), label_column or (own and own.label_column)
    rows = read_table(table, None, *names)
    if wanted == "all":
        return EvaluatedRows(rows, "all", bool(known), "all rows of the table" + _trained(bool(known)))
    if known:
        rows = trained_on.rows(table, known[table], wanted or "test")
    elif rows[0].split is not None:
        rows = [row for row in rows if row.split == (wanted or "test")]
    elif wanted is not None:
        raise UserError(
            f"the table has no {wanted} split: it has no column split, and the model was not trained on it", path=table,
            fix="leave --split out to score all rows, or add a column split",
        )  # fmt: skip
    else:
        return EvaluatedRows(rows, "all", False, "all rows of a table new to the model")
    wanted = wanted or "test"
    if not rows:
        raise UserError(
            f"the table has no row in the {wanted} split", path=table,
            fix="name another with --split, or score all rows with --split all",
        )  # fmt: skip
    said = f"the {wanted} rows of a table that the model was trained on" if known else f"the table's {wanted} rows"
    return EvaluatedRows(rows, wanted, bool(known), said)


def chosen_windows(
    files: Mapping[str, Sequence[Path]], config: ClassifierConfig, trained_on: TrainedOn, split: str | None
) -> EvaluatedRows:
    """The windows of FASTA files that are asked for.

    Args:
        files: class -> its files.
        config: the model's.
        trained_on: the files of the model's training.
        split: train, valid, test, all, or None for the test split of files that the model was trained on and otherwise
            all.

    Raises:
        UserError: a class is unknown, only some files were trained on, or the splits cannot be made again.
    """
    wanted = _split_name(split)
    for name in files:
        if name not in config.classes:
            raise UserError("this is none of the model's classes", found=name, accepted=", ".join(config.classes[:20]))
    paths = [path for several in files.values() for path in several]
    known = trained_on.known(paths)
    new = [path for path in paths if path not in known]
    if wanted == "all" or (new and not known and wanted is None):
        said = f"all windows{_trained(bool(known))}" if known else "all windows of files new to the model"
        return EvaluatedRows(files, "all", bool(known), said)
    if new and known:
        raise UserError(
            "the model was trained on some of these files and not on others", path=new[0],
            found=f"new, beside {next(iter(known))}, which was trained on",
            fix="score them apart; or everything, training windows too, with --split all",
        )  # fmt: skip
    if new:
        raise UserError(
            f"the files have no {wanted} split: the model was not trained on them", path=new[0],
            fix="leave --split out to score all windows",
        )  # fmt: skip
    wanted = wanted or "test"
    examples = trained_on.examples(files, known, wanted)
    return EvaluatedRows(examples, wanted, True, f"the {wanted} windows of files that the model was trained on")


def chosen_intervals(
    folder: IntervalFolder, genomes: Mapping[str, Path], config: ClassifierConfig, trained_on: TrainedOn,
    split: str | None,
) -> EvaluatedRows:  # fmt: skip
    """The labelled intervals that are asked for.

    Args:
        folder: of labelled intervals.
        genomes: class -> genome of its intervals.
        config: the model's.
        trained_on: the files of the model's training.
        split: train, valid, test, all, or None for the test split where there is one and otherwise all.

    Raises:
        UserError: a class is none of the model's, an interval does not fit its genome, the folder has no such split, or
            its splits cannot be made again.
    """
    wanted = _split_name(split)
    for name in folder.classes:
        if name not in config.classes:
            raise UserError(
                "this is none of the model's classes", path=folder.files["train"][name], found=name,
                accepted=", ".join(config.classes[:20]),
            )  # fmt: skip
    paths = [*folder.paths(), *genomes.values()]
    known = trained_on.known(paths)
    new = [path for path in paths if path not in known]
    seen = any(path in known for path in folder.paths())
    if seen and new and wanted != "all":
        raise UserError(
            "the model was trained on some of these files and not on others", path=new[0],
            fix="give the files of the training; or score everything, training rows too, with --split all",
        )  # fmt: skip
    placed = PlacedRows.read(folder, genomes)
    wanted = wanted or ("test" if seen or "test" in folder.files else "all")
    if wanted == "all":
        chosen = np.arange(len(placed.rows))
    elif seen:
        chosen = trained_on.intervals(placed, wanted)
    else:
        chosen = np.array([i for i, row in enumerate(placed.rows) if row.split == wanted], np.int64)
    if not len(chosen):
        raise UserError(
            f"the folder has no {wanted} split", path=folder.path, found=", ".join(folder.files),
            fix="name another with --split, or score everything with --split all",
        )  # fmt: skip
    labels = np.array([config.classes.index(placed.rows[i].label) for i in chosen.tolist()], np.int64)
    which = "all intervals" if wanted == "all" else f"the {wanted} intervals"
    said = f"{which} of a folder that the model was trained on" if seen else f"{which} of a folder new to the model"
    return EvaluatedRows(Examples(placed.cut(config.window), chosen, labels), wanted, seen, said)


def _split_name(split: str | None) -> str | None:
    if split is None or split.lower() == "all":
        return None if split is None else "all"
    if split.lower() not in SPLIT_NAMES:
        raise UserError("the split is unknown", found=split, accepted=_ACCEPTED)
    return SPLIT_NAMES[split.lower()]


def _trained(known: bool) -> str:
    return ", those that the model was trained on among them" if known else ""


def _check_labels(rows: list[TableRow], config: ClassifierConfig) -> None:
    unknown = next((row for row in rows if row.label not in config.classes), None)
    if unknown is not None:
        raise UserError(
            "the label is none of the model's classes", path=unknown.path, line=unknown.line, found=unknown.label,
            accepted=", ".join(config.classes[:20]), fix="correct it, or remove the row",
        )  # fmt: skip


def _windows(path: Path, window: int, share: ReadShare) -> Iterator[np.ndarray]:
    """Token ids of a file's windows, of which at least half the bases are known."""
    known = share.of_file(path)
    for found in record_windows(record_stretches(stream_fasta(path, unique_ids=False)), window, window):
        if len(found.ids) and 2 * found.known >= min(window, len(found.ids)):
            share.window(known, found.record, found.start, found.end, found.ids)
            yield found.ids
