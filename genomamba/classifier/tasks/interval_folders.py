"""Labelled intervals as GenomicBenchmarks lays them out: a folder for each split, and in it a file for each class.

    DATASET/metadata.yaml          the classes, and of each the genome in which its intervals lie
    DATASET/train/CLASS.csv.gz     columns id, region, start, end (0-based half-open) and strand
    DATASET/test/CLASS.csv.gz

Source: Gresova et al. 2023, doi 10.1186/s12863-023-01123-8. A folder of one's own may do without the metadata, and may
have a folder `valid` too; files may be plain.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mamba_configs.yaml_files import read_yaml
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.intervals import Interval, position, text_lines

LAYOUT = "{train,test}/CLASS.csv.gz with the columns id, region, start, end and strand"
_SPLITS = ("train", "valid", "test")
_ENDINGS = (".csv.gz", ".csv")
_COLUMNS = ("region", "start", "end")
_METADATA = "metadata.yaml"


@dataclass(frozen=True)
class IntervalFolder:
    """A folder of labelled intervals.

    Attributes:
        path: the folder.
        files: split -> class -> its file; train, and what else there is of valid and test.
        genomes: class -> the name of the genome's file, as the metadata give it; empty without metadata.
    """

    path: Path
    files: Mapping[str, Mapping[str, Path]]
    genomes: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> IntervalFolder:
        """Finds the files of a folder; what they hold is read by `intervals`.

        Raises:
            UserError: the folder is laid out otherwise, or its metadata name other classes.
        """
        if not path.is_dir():
            problem = "this is a file" if path.exists() else "there is no such folder"
            raise UserError(problem, path=path, accepted=f"a folder of labelled intervals: {LAYOUT}")
        files = {split: _class_files(path / split) for split in _SPLITS if (path / split).is_dir()}
        if not files.get("train"):
            raise _no_train(path)
        for split, own in files.items():
            unknown = next((name for name in own if name not in files["train"]), None)
            if unknown is not None:
                raise UserError(
                    f"this class is in {split} and not in train", path=own[unknown], found=unknown,
                    accepted=", ".join(files["train"]), fix="add its file to train, or remove this one",
                )  # fmt: skip
        return cls(path, files, _genomes(path / _METADATA, tuple(files["train"])))

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.files["train"])

    def paths(self) -> list[Path]:
        """Every file of intervals."""
        return [path for own in self.files.values() for path in own.values()]

    def intervals(self) -> Iterator[tuple[str, Interval]]:
        """The split of each interval, and the interval, whose label is its class.

        Raises:
            UserError: a row is broken; the file and the line are named.
        """
        for split, own in self.files.items():
            for label, path in own.items():
                found = False
                for interval in _rows(path, label):
                    found = True
                    yield split, interval
                if not found:
                    raise UserError("this file holds no interval", path=path, accepted=f"rows of {_names(_COLUMNS)}")


def _class_files(folder: Path) -> dict[str, Path]:
    """Class -> file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = next((one for one in _ENDINGS if path.name.lower().endswith(one)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = path.name[: -len(ending)]
        if name in found:
            raise UserError("this class is there twice", path=path, found=found[name].name, fix="remove one of the two")
        found[name] = path
    return found


def _no_train(path: Path) -> UserError:
    sets = sorted(one.parent.name for one in path.glob("*/train") if one.is_dir())
    if sets:
        return UserError(
            "this folder holds several sets", path=path, found=", ".join(sets), accepted="one of them",
            fix=f"--intervals {path / sets[0]}",
        )  # fmt: skip
    return UserError(
        "this is no folder of labelled intervals: its folder train has no file of a class", path=path, accepted=LAYOUT,
        fix="give the folder of one set, as `genomamba fetch genomic-benchmarks` brings them",
    )  # fmt: skip


def _genomes(path: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """Class -> the name of its genome's file."""
    if not path.is_file():
        return {}
    document = read_yaml(path)
    named: Any = document.values.get("classes")
    if not isinstance(named, dict) or not all(isinstance(own, dict) for own in named.values()):
        raise UserError("the metadata name no classes", path=path, found=named, accepted="classes: {NAME: {url: ...}}")
    if set(named) != set(classes):
        raise UserError(
            "the metadata and the folder train have other classes", path=path, line=document.line("classes"),
            found=_names(sorted(named)), accepted=_names(classes), fix="correct the metadata, or add the files",
        )  # fmt: skip
    return {name: PurePosixPath(str(own["url"])).name for name, own in named.items() if own.get("url")}


def _rows(path: Path, label: str) -> Iterator[Interval]:
    lines = text_lines(path)
    number, header = next(lines, (1, ""))
    names = [name.strip().lower() for name in next(csv.reader([header]), [])]
    lacking = [name for name in _COLUMNS if name not in names]
    if lacking:
        raise UserError(
            f"the header lacks the column {lacking[0]}", path=path, line=number, found=header.strip() or "no header",
            accepted="id, region, start, end and strand, separated by commas", fix="add a header line, or correct it",
        )  # fmt: skip
    region, start, end = (names.index(name) for name in _COLUMNS)
    strand = names.index("strand") if "strand" in names else None
    for number, text in lines:
        if not text.strip():
            continue
        fields = next(csv.reader([text]))
        if len(fields) != len(names):
            raise UserError(
                "the row has another number of fields than the header", path=path, line=number,
                found=f"{len(fields)} fields", accepted=f"{len(names)} fields: {', '.join(names)}", fix="mend the row",
            )  # fmt: skip
        own = "." if strand is None else fields[strand].strip() or "."
        first, last = (position(path, number, names[i], fields[i]) for i in (start, end))
        yield Interval(fields[region].strip(), first, last, own, label, str(path), number)


def _names(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
