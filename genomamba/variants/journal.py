"""Scores that survive whatever stops a run: written beside the output as they are made, read again by `--resume`.

`calls.vcf.gz` that isn't finished has `calls.vcf.gz.partial` beside it. Its first line says of which files, model and
settings the scores are; each further line holds those of the next records. A line that a kill cut short is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genomamba.variants.scores import AlleleScores
from mamba_data_prep.atomic import named_write_errors
from mamba_data_prep.errors import UserError

Scores = Sequence[Sequence[AlleleScores | None]]
"""Of each record, of each of its alternative alleles."""


class Journal:
    """The scores so far; made by `Journal.begin`.

    Attributes:
        path: the file.
        records: whose scores it holds.
    """

    def __init__(self, path: Path, kept: int, records: int) -> None:
        self.path, self.records = path, records
        self._kept = kept
        self._file = open(path, "ab")  # noqa: SIM115 - open while the run lasts; `close` ends that

    @classmethod
    def begin(cls, out: Path, of: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Journal:
        """Begins a journal beside an output, or goes on with the one that lies there.

        Args:
            out: the output.
            of: files, model and settings that the scores are of, as JSON holds them.
            resume: go on with scores that lie there.
            overwrite: replace scores that lie there.

        Raises:
            UserError: scores lie there and neither is wanted, they are of other work, or they cannot be written.
        """
        path = journal_path(out)
        with named_write_errors(path):
            kept = records = 0
            if resume and path.exists():
                kept, records = _kept(path, of)
            elif path.exists() and not overwrite:
                fix = "add --resume to go on with them, or --overwrite to begin anew"
                raise UserError("holds the scores of a stopped run", path=path, fix=fix)
            if kept:
                os.truncate(path, kept)
            else:
                path.write_bytes(_line(of))
            return cls(path, kept, records)

    def chunks(self) -> Iterator[Scores]:
        """The scores that an earlier run left, in the portions in which they were added."""
        with open(self.path, "rb") as file:
            file.readline()
            while file.tell() < self._kept:
                portion = json.loads(file.readline())
                yield [[None if one is None else AlleleScores(*one) for one in record] for record in portion]

    def add(self, scores: Scores) -> None:
        """Adds the scores of the next records; they are on the disk when this returns.

        Raises:
            UserError: the disk is full.
        """
        with named_write_errors(self.path):
            self._file.write(_line(scores))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.records += len(scores)

    def close(self) -> None:
        """Closes the file, which stays where it holds scores."""
        self._file.close()
        if not self.records:
            self.path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Removes the file, once the output is whole."""
        self._file.close()
        with suppress(OSError):
            self.path.unlink()


def journal_path(out: Path) -> Path:
    """Where the scores of an unfinished output are."""
    return out.with_name(f"{out.name}.partial")


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _kept(path: Path, of: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes of whole lines, and records whose scores they hold."""
    with open(path, "rb") as file:
        _check_same(path, file.readline(), of)
        kept, records = file.tell(), 0
        for line in file:
            try:
                found = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                found = None
            if not isinstance(found, list):
                break
            kept, records = kept + len(line), records + len(found)
    return kept, records


def _check_same(path: Path, first: bytes, of: Mapping[str, Any]) -> None:
    fix = "use the same files and settings, or add --overwrite instead of --resume to begin anew"
    try:
        theirs = json.loads(first)
        other = sorted(name for name in of.keys() | theirs.keys() if theirs.get(name) != json.loads(_line(of[name])))
    except (ValueError, LookupError, AttributeError, TypeError):
        raise UserError("these scores cannot be gone on with: the file is damaged", path=path, fix=fix) from None
    if other:
        raise UserError("these scores are of other work", path=path, found=f"another {' and '.join(other)}", fix=fix)
