"""One file made into a table, row by row: what is done is kept where it is stopped, or where the file is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genomamba.prediction.partial import Kept, can_go_on, describe, forget, partial_path, taken_over
from genomamba.prediction.stopping import InputRefused, stoppable, unstoppable
from mamba_data_prep.errors import Interrupted, UserError
from mamba_data_prep.provenance import write_sidecar


@runtime_checkable
class Tally(Protocol):
    """What is counted of the rows, as it is told at the end.

    Attributes:
        rows: rows written, those of an earlier run that was gone on with among them.
        seconds: that it took.
    """

    rows: int
    seconds: float

    def result(self) -> dict[str, Any]:
        """Gives plain numbers for JSON."""
        ...


@dataclass(frozen=True)
class TableJob:
    """A table that is made of a file by a model.

    Args:
        model: bundle or run folder.
        fasta: the file that is read; "-" is standard input.
        out: the table; "-" is standard output.
        settings: what decides the rows.
        seed: of the model's training.
        inputs: further files that were read.
    """

    model: Path
    fasta: Path
    out: Path
    settings: Mapping[str, Any]
    seed: Any
    inputs: tuple[Path, ...] = ()

    @property
    def to_file(self) -> bool:
        """Whether the table is a file."""
        return str(self.out) != "-"

    def kept(self, *, overwrite: bool) -> Kept | None:
        """The rows that an earlier run of this very work left, see `taken_over`.

        Raises:
            UserError: there are rows of other work, and `overwrite` isn't set.
        """
        if not self.to_file:
            return None
        return taken_over(
            self.out, fasta=self.fasta, model=self.model, settings=self.settings, overwrite=overwrite
        )  # fmt: skip

    def keep_as(self, tally: Tally) -> Path | None:
        """Where the rows so far are kept when the work is stopped; None where there are none."""
        return partial_path(self.out) if tally.rows else None

    def run(self, stream: Callable[[Callable[[], Any]], None], tally: Tally) -> None:
        """Does the work, and takes its time.

        Args:
            stream: writes the rows; what it does within the context that it is given is never cut.
            tally: counts them meanwhile.

        Raises:
            Interrupted: stopped; the rows so far are kept.
            UserError: the file is refused where it has been read to; the rows so far are kept.
        """
        began = time.perf_counter()
        try:
            with stoppable() as whole:
                stream(whole)
        except KeyboardInterrupt as stop:
            with unstoppable():
                raise Interrupted(self._told(tally, str(stop) or "the keyboard")) from None
        except InputRefused as stop:
            with unstoppable():
                raise self._refused(tally, stop.error) from None
        tally.seconds = time.perf_counter() - began

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes beside the whole table what it was made from, and removes what an earlier run left."""
        if not self.to_file:
            return
        extra = {"settings": self.settings, "result": result}
        write_sidecar(self.out, inputs=[self.fasta, *self.inputs], model=self.model, seed=self.seed, extra=extra)
        forget(self.out)

    def _told(self, tally: Tally, by: str) -> str:
        """What is said of a stop: where the rows so far are, and how to go on."""
        if not tally.rows:
            return f"by {by}, before the first row was done; nothing was written"
        if not self.to_file:
            return f"by {by}; the first {tally.rows:,} rows are written, whole, to standard output"
        path = self._describe_kept(tally)
        again = "run the same command again to go on after them"
        if not can_go_on(path, self.fasta):
            again = "they can't be added to: run the same command with --overwrite to start from the beginning"
        return f"by {by}; the first {tally.rows:,} rows are kept in {path}: {again}"

    def _refused(self, tally: Tally, error: UserError) -> UserError:
        """What is said of a file that is refused in its middle: what it was, and where the rows so far are."""
        if not tally.rows:
            return error
        if not self.to_file:
            rows = f"the first {tally.rows:,} rows are written, whole, to standard output"
        else:
            path = self._describe_kept(tally)
            rows = f"the first {tally.rows:,} rows are kept in {path}, which --overwrite replaces when you run again"
        return UserError(
            error.problem, path=error.path, line=error.line, record=error.record, found=error.found,
            accepted=error.accepted, fix=rows if error.fix is None else f"{error.fix}; {rows}",
        )  # fmt: skip

    def _describe_kept(self, tally: Tally) -> Path:
        """The file of the rows so far, of which it is written beside it what they are."""
        path = partial_path(self.out)
        result = tally.result()
        describe(path, fasta=self.fasta, model=self.model, settings=self.settings, result=result, seed=self.seed)
        return path
