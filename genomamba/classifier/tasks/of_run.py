"""The labelled data of a fine-tuning run: made for training, and made again when its model is scored on the same files.

A bundle says which files its model was trained on, by the hash of what they hold, and by which settings they were
split. A file that is given for scoring is thereby known again, whatever it is called by now, and its rows fall into the
splits in which training left them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.tasks.genomes import promoter_files, promoter_genome, species_data
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.classifier.tasks.intervals import PlacedRows, class_genomes, interval_data, split_intervals
from genomamba.classifier.tasks.labelled_tables import TableRow
from genomamba.classifier.tasks.stretches import Stretches
from genomamba.classifier.tasks.tasks import named_files, split_rows, table_data, table_rows
from mamba_configs.settings import validated
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint


def labelled_data(task: str, inputs: Mapping[str, Any], data: FinetuneData) -> LabelledData:
    """The labelled data of a task, split.

    Args:
        task: species, promoter, table or intervals.
        inputs: the task's files, as the command line names them.
        data: how they are read and split.

    Raises:
        UserError: something about the files.
    """
    if task == "table":
        tables = inputs["table"] if isinstance(inputs["table"], list | tuple) else (inputs["table"],)
        valid, test = (Path(inputs[name]) if inputs.get(name) else None for name in ("valid", "test"))
        return table_data([Path(one) for one in tables], data, valid=valid, test=test, seed=data.split_seed)
    if task == "intervals":
        folder = IntervalFolder.open(Path(inputs["intervals"]))
        fasta = Path(inputs["fasta"]) if inputs.get("fasta") else None
        genomes = class_genomes(folder, fasta, inputs.get("classes") or ())
        return interval_data(folder, genomes, data, data.split_seed)
    if task == "species":
        return species_data(named_files(inputs["classes"]), data)
    if inputs.get("positive"):
        return promoter_files(Path(inputs["positive"]), Path(inputs["negative"]), data, data.split_seed)
    return promoter_genome(Path(inputs["fasta"]), Path(inputs["tss"]), data, data.split_seed)


@dataclass(frozen=True)
class TrainedOn:
    """The files that a model was trained on.

    Attributes:
        model: the bundle, for messages.
        described: how the run described its data: task, files, split and counts.
        content: recorded path -> hash of the file.
        data: the settings by which the files were read and split.
    """

    model: Path
    described: Mapping[str, Any]
    content: Mapping[str, str]
    data: FinetuneData

    @classmethod
    def of_bundle(cls, model: Path, training: Mapping[str, Any]) -> TrainedOn:
        """What a bundle tells of its training; nothing is known of the files of one that does not tell.

        Args:
            model: the bundle, for messages.
            training: the part of its configuration that tells how it was made.
        """
        content = {path: str(found.get("xxh3_128")) for path, found in (training.get("inputs") or {}).items()}
        settings = (training.get("settings") or {}).get("data") or {}
        return cls(model, training.get("data") or {}, content, validated(FinetuneData, settings, path=model))

    def known(self, paths: Sequence[Path]) -> dict[Path, str]:
        """The given files that the model was trained on, each with the path that was recorded for it."""
        recorded = {content: path for path, content in self.content.items()}
        hashes = {path: fingerprint(path).xxh3_128 for path in paths if str(path) != "-"} if recorded else {}
        return {path: recorded[content] for path, content in hashes.items() if content in recorded}

    def rows(self, table: Path, recorded: str, split: str) -> list[TableRow]:
        """The rows of one of the run's tables that training left in a split.

        Args:
            table: the file as it is given now.
            recorded: its path as it was recorded.
            split: train, valid or test.

        Raises:
            UserError: another table of the run is gone, or the run's rows were split by another rule.
        """
        places = self._places({recorded: table})
        valid, test = (self.described.get(name) and places[str(self.described[name])] for name in ("valid", "test"))
        tables = [places[str(path)] for path in self.described["table"]]
        rows = table_rows(tables, self.data, valid=valid, test=test)
        made = split_rows(rows, self.data, self.data.split_seed)
        self._check(made.how, {name: int((made.keep & (made.splits == name)).sum()) for name in ("train", "test")})
        chosen = made.keep & (made.splits == split)
        return [row for row, taken in zip(rows, chosen, strict=True) if taken and row.path == table]

    def examples(self, files: Mapping[str, Sequence[Path]], recorded: Mapping[Path, str], split: str) -> Examples:
        """The examples of some of the run's FASTA files that training left in a split.

        Args:
            files: class -> its files as they are given now, each known.
            recorded: file -> its path as it was recorded.
            split: train, valid or test.

        Raises:
            UserError: a file was another class's in training, or the run's data cannot be made again.
        """
        own = self._class_files()
        for name, paths in files.items():
            wrong = next((path for path in paths if recorded[path] not in own.get(name, ())), None)
            if wrong is not None:
                classes = ", ".join(label for label, places in own.items() if recorded[wrong] in places)
                raise UserError(
                    f"the model was trained on this file, and not as class {name}", path=wrong, found=name,
                    accepted=classes or "files of one class", fix=f"--class {classes or 'NAME'}={wrong}",
                )  # fmt: skip
        places = self._places({place: path for path, place in recorded.items()})
        if self.described["task"] == "species":
            inputs = {"classes": [f"{name}={places[path]}" for name, paths in own.items() for path in paths]}
        else:
            inputs = {name: places[str(self.described[name])] for name in ("positive", "negative")}
        made = labelled_data(str(self.described["task"]), inputs, self.data)
        self._check(made.description.get("split"), {name: len(part) for name, part in made.splits().items()})
        chosen = made.splits()[split]
        return chosen.select(_of_files(chosen, made.classes, files))

    def intervals(self, placed: PlacedRows, split: str) -> np.ndarray:
        """Which of the run's labelled intervals training left in a split, row numbers.

        Raises:
            UserError: the run's intervals were split by another rule.
        """
        _, made = split_intervals(placed, self.data, self.data.split_seed)
        self._check(made.how, {name: int((made.keep & (made.splits == name)).sum()) for name in ("train", "test")})
        return np.flatnonzero(made.keep & (made.splits == split))

    def _class_files(self) -> dict[str, list[str]]:
        """Class -> its recorded files; empty where the run's classes have no files of their own."""
        if self.described.get("task") == "species":
            return {name: list(paths) for name, paths in self.described["files"].items()}
        named = {"other": self.described.get("negative"), "promoter": self.described.get("positive")}
        return {name: [path] for name, path in named.items() if path}

    def _places(self, given: Mapping[str, Path]) -> dict[str, Path]:
        """Where each recorded file lies now: as given, or where it was."""
        places = dict(given)
        for path, content in self.content.items():
            if path in places:
                continue
            if not Path(path).is_file() or fingerprint(path).xxh3_128 != content:
                raise UserError(
                    "the splits of the training cannot be made again: a file of it is gone or has changed", path=path,
                    fix="put it back, or score everything, training rows too, with --split all",
                )  # fmt: skip
            places[path] = Path(path)
        return places

    def _check(self, how: object, counts: Mapping[str, int]) -> None:
        """Refuses splits that are not those of the training: another version may split by another rule."""
        before = {name: sum((self.described.get("counts") or {}).get(name, {}).values()) for name in counts}
        if how != self.described.get("split") or dict(counts) != before:
            raise UserError(
                "the splits of the training cannot be made again: this version splits by another rule",
                path=self.model, found=self.described.get("split"), accepted=str(how),
                fix="score everything, training rows too, with --split all; or train again",
            )  # fmt: skip


def _of_files(examples: Examples, classes: tuple[str, ...], files: Mapping[str, Sequence[Path]]) -> np.ndarray:
    """Which examples come from the given files, bool (examples,)."""
    source = examples.source
    if not isinstance(source, Stretches):  # a file a class
        return np.isin(examples.labels, [classes.index(name) for name in files])
    given = {path.resolve() for paths in files.values() for path in paths}
    numbers = [number for number, genome in enumerate(source.genomes) if genome.path.resolve() in given]
    return np.isin(source.genome[examples.rows], numbers)
