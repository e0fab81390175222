"""How much of a classifier's held-out data a model has read in training, be it pre-training or its own."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genomamba import tokens
from genomamba.classifier.examples import Examples, LabelledData
from genomamba.classifier.tasks.stretches import Stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.reading import Overlap, RegionsRead, SequencesRead
from mamba_data_prep.genomes.windows import WindowTable
from mamba_data_prep.provenance import fingerprint


@dataclass(frozen=True)
class Reading:
    """Everything that a model and those it began from have read.

    Attributes:
        genomes: stretches of genomes.
        sequences: separate sequences.
    """

    genomes: tuple[RegionsRead, ...] = ()
    sequences: tuple[SequencesRead, ...] = ()

    @classmethod
    def of_training(cls, data: LabelledData, before: Reading | None) -> Reading:
        """What a model has read once it is trained on some data.

        Args:
            data: of the training.
            before: what the model that it began from had read.
        """
        before = before or cls()
        source = data.train.source
        if isinstance(source, Stretches):
            return cls((*before.genomes, *_regions(source, data.train)), before.sequences)
        return cls(before.genomes, (*before.sequences, SequencesRead.of(data.train)))

    @classmethod
    def of_training_record(cls, training: Mapping[str, Any], path: Path | None = None) -> Reading | None:
        """What a bundle's record of its training says that the model has read; None where it says nothing of that.

        Bundles of earlier releases say nothing.

        Args:
            training: of the bundle's `config.json`.
            path: of the bundle, for messages.

        Raises:
            UserError: what it says cannot be understood.
        """
        found = training.get("read")
        if found is None:
            return None
        try:
            return cls(
                tuple(RegionsRead.from_dict(one) for one in found["genomes"]),
                tuple(SequencesRead.from_dict(one) for one in found["sequences"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"what the model has read is not told in order ({error!r})", path=path) from None

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {
            "genomes": [one.to_dict() for one in self.genomes],
            "sequences": [one.to_dict() for one in self.sequences],
        }

    def of_genome(self, xxh3_128: str) -> RegionsRead | None:
        """The stretches read of the genome with this hash; None where it isn't known to be one that was read."""
        known = [one for one in self.genomes if one.xxh3_128 == xxh3_128]
        return functools.reduce(operator.or_, known) if known else None


class ReadShare:
    """Adds up how much of what a classifier is scored on it has read in training.

    Args:
        reading: of the classifier; None where its bundle does not say what it has read.

    Attributes:
        overlap: so far.
    """

    def __init__(self, reading: Reading | None) -> None:
        self.reading = reading
        self.overlap = Overlap()

    def examples(self, examples: Examples) -> None:
        """Adds all examples of a split."""
        if self.reading is not None:
            self.overlap += examples_overlap(self.reading, examples)[0]

    def sequence(self, bases: np.ndarray) -> None:
        """Adds a separate sequence, upper-case ASCII."""
        if self.reading is not None:
            self.overlap += sequences_overlap(self.reading, [bases])

    def of_file(self, path: Path) -> RegionsRead | None:
        """The stretches that were read of a genome, None where it isn't known to have been read."""
        if self.reading is None or not self.reading.genomes or not path.is_file():
            return None
        return self.reading.of_genome(fingerprint(path).xxh3_128)

    def window(self, known: RegionsRead | None, record: str, start: int, end: int, ids: np.ndarray) -> None:
        """Adds a window of a file: by its place, where the file is known, and otherwise as a separate sequence."""
        if known is not None:
            self.overlap += known.overlap(record, np.array([start]), np.array([end]))
        elif self.reading is not None and self.reading.sequences:
            self.sequence(np.frombuffer(tokens.decode(ids).encode(), np.uint8))

    def sentence(self) -> str:
        """A sentence for people: how much of what is scored the model has read."""
        if self.reading is None:
            return "whether the model has read them in training is unknown: its bundle does not say"
        if not self.overlap.read_windows:
            return "none of them is known to have been read in training"
        return f"caution: in training the model has read {self.overlap} of them"

    def to_dict(self) -> dict[str, int] | None:
        """Plain values for JSON; None where it isn't known what the model has read."""
        return None if self.reading is None else self.overlap.to_dict()


def examples_overlap(reading: Reading, examples: Examples) -> tuple[Overlap, list[str]]:
    """How much of some examples was read, and the names of the genomes for which this isn't known."""
    source = examples.source
    if not isinstance(source, Stretches):
        return sequences_overlap(reading, list(examples)), []
    total, unknown = Overlap(), []
    for number, genome in enumerate(source.genomes):
        known = reading.of_genome(genome.fingerprint.xxh3_128)
        if known is None:
            unknown.append(genome.path.name)
        else:
            total += known.overlap_of(genome, _windows(source, examples, number))
    return total, unknown


def pretraining_note(reading: Reading | None, data: LabelledData) -> tuple[dict[str, Any], str]:
    """What the model that training began from had read of the test split, as plain values and as a sentence."""
    if reading is None:
        return {"known": False}, "What the pre-trained model has read is unknown: its bundle does not say."
    overlap, unknown = examples_overlap(reading, data.test)
    about = {"known": True, "unknown_files": unknown, "test": overlap.to_dict()}
    if not overlap.windows:
        return about, "Whether the pre-trained model has read the test sequences is unknown: it read other files."
    said = f"Of the test split the pre-trained model has read {overlap}"
    others = f"; of {', '.join(unknown)} it is unknown, as it read other files" if unknown else ""
    return about, f"{said}{others}."


def _regions(source: Stretches, examples: Examples) -> list[RegionsRead]:
    found = []
    for number, genome in enumerate(source.genomes):
        found.append(RegionsRead.of(genome, _windows(source, examples, number)))
    return found


def _windows(source: Stretches, examples: Examples, number: int) -> WindowTable:
    """The examples that are cut from one of the genomes."""
    own = examples.rows[source.genome[examples.rows] == number]
    return WindowTable(source.record[own].astype(np.int32), source.start[own], source.end[own])


def sequences_overlap(reading: Reading, sequences: Sequence[np.ndarray]) -> Overlap:
    """How many of some separate sequences were trained on, as far as it can be told."""
    found = [one.overlap(sequences) for one in reading.sequences]
    return max(found, key=lambda one: one.read_windows, default=Overlap())
