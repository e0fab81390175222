"""What a study is: typed options, the files it reads, and a run that keeps every finished fit.

Whatever a study computes goes through `Place.once`, which keeps its result with what was asked for. A study that was
stopped goes on there: what is kept and was asked the same is read, the rest is computed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from genomamba.studies.charts import Chart
from mamba_configs.settings import Section
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError

Row = Mapping[str, Any]
"""A row of a table: column -> number, text or None."""


@dataclass(frozen=True)
class NeededFile:
    """A file that a study reads.

    Attributes:
        path: below the folder of data, or absolute.
        origin: what it is and where it can be had.
    """

    path: Path
    origin: str


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        title: of its page.
        question: what was asked, a paragraph.
        protocol: how it was measured, a sentence each.
        tables: title -> rows that share their columns; the first one is the study's table.
        words: what the figures allow one to say, a sentence each.
        chart: the picture.
    """

    title: str
    question: str
    protocol: Sequence[str]
    tables: Mapping[str, Sequence[Row]]
    words: Sequence[str]
    chart: Chart


@dataclass(frozen=True)
class Place:
    """Where a study reads and writes.

    Attributes:
        data: the folder of the files it needs.
        out: the folder of what it makes.
        say: told what is being done, in a line.
        asked: what every fit depends on besides its own settings, such as the contents of files.
    """

    data: Path
    out: Path
    say: Callable[[str], object] = print
    asked: Mapping[str, Any] = field(default_factory=dict)

    def once(self, name: str, asked: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
        """A result that is computed once.

        Args:
            name: of the fit, and of its folder below `out/fits`.
            asked: everything that decides the result, as plain values.
            make: computes it, in that folder if it writes anything; it may find there what a stopped one has left.

        Returns:
            Plain values, as JSON holds them.
        """
        folder = self.out / "fits" / name
        kept, whole = folder / "result.json", json.loads(json.dumps({**self.asked, **asked}, default=str))
        if kept.is_file():
            found = json.loads(kept.read_text(encoding="utf-8"))
            if found["asked"] == whole:
                return found["result"]
            self.say(f"{name}: made anew, since something else is asked")
        else:
            self.say(f"{name}: begins")
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"asked": whole, "result": make(folder)}, indent=2, default=float)
        with atomic_write(kept) as file:
            file.write(text + "\n")
        return json.loads(text)["result"]


OptionsT = TypeVar("OptionsT", bound=Section)


class Study(ABC, Generic[OptionsT]):
    """One study.

    Attributes:
        options: the type of its settings, each with a default and a description of what it accepts.
    """

    options: type[OptionsT]

    @abstractmethod
    def files(self, options: OptionsT) -> list[NeededFile]:
        """The files that it reads with these settings."""

    @abstractmethod
    def run(self, options: OptionsT, place: Place) -> Findings:
        """Computes what is not kept yet, and says what was found.

        Raises:
            UserError: something about the files or settings.
            Interrupted: stopped; what is finished is kept.
        """


def check_files(needed: Sequence[NeededFile], data: Path | None, name: str) -> None:
    """Refuses to begin where files are missing, and says of each what it is and where it can be had.

    Raises:
        UserError: no folder is given, or files are missing.
    """
    missing = [file for file in needed if data is None or not (data / file.path).is_file()]
    if not missing:
        return
    listed = "".join(f"\n              {file.path}: {file.origin}" for file in missing)
    fix = f"put these below the folder that --data names:{listed}"
    if data is None:
        raise UserError(f"the study {name} reads files, and no folder is given", accepted="--data FOLDER", fix=fix)
    raise UserError(f"{len(missing)} of the files that the study {name} reads are missing", path=data, fix=fix)
