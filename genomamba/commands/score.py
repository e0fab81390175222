"""`genomamba score`: the log-likelihood of a file's records, regions or bases under a language model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genomamba.commands.checks import check_score
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.pseudo_likelihood import EVERY
from genomamba.prediction.igv import write_session
from genomamba.prediction.partial import Kept
from genomamba.prediction.progress import ReadingProgress
from genomamba.prediction.score_rows import BaseScores, StretchScores, base_rows, no_scores, stretch_rows
from genomamba.prediction.scored import CausalScorer, MaskedScorer, ScoredPiece, Strands, score_stretches
from genomamba.prediction.source import Source
from genomamba.prediction.stopping import until_refused
from genomamba.prediction.stretches import Stretch
from genomamba.prediction.table_job import TableJob
from genomamba.prediction.writers import TRACKS, output_format, table_writer
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint
from mamba_training.bundle import load_bundle
from mamba_training.devices import pick_device
from mamba_training.progress import say

Per = Literal["record", "region", "base"]
_DEFAULT_WINDOW = 4096


@dataclass
class ScoreSummary:
    """What scoring did, as it is told at the end.

    Attributes:
        rows: rows of the table.
        bases: bases of the records or regions.
        scored: of which a probability was told.
        bits: that these cost together.
        seconds: that it took.
    """

    rows: int = 0
    bases: int = 0
    scored: int = 0
    bits: float = 0.0
    seconds: float = 0.0

    def add(self, rows: StretchScores | BaseScores) -> None:
        """Counts some rows."""
        self.rows += len(rows)
        self.bases += int((rows.end - rows.start).sum())
        self.scored += int(rows.scored.sum())
        self.bits -= float(np.nansum(rows.log2_p))

    def take_over(self, result: Mapping[str, Any]) -> None:
        """Counts the rows of an earlier run."""
        self.rows, self.bases, self.scored = (int(result[name]) for name in ("rows", "bases", "scored"))
        self.bits = float(result["bits"])

    @property
    def bits_per_base(self) -> float | None:
        """Bits a scored base; None where none was scored."""
        return self.bits / self.scored if self.scored else None

    def result(self) -> dict[str, Any]:
        """Gives plain numbers for JSON."""
        return {
            "rows": self.rows, "bases": self.bases, "scored": self.scored, "bits": self.bits,
            "bits_per_base": self.bits_per_base, "seconds": self.seconds,
        }  # fmt: skip

    def text(self, out: Path) -> str:
        """Tells it in a line for people."""
        mean = "no base was scored" if self.bits_per_base is None else f"{self.bits_per_base:.4f} bits a base"
        rate = self.bases / max(self.seconds, 1e-9)
        return (
            f"{self.rows:,} rows, {self.scored:,} of {self.bases:,} bases scored in {self.seconds:.1f} s "
            f"({rate:,.0f} bases/s) -> {out}\n  {mean}"
        )


def run_score(
    *,
    model: Path,
    fasta: Path,
    out: Path,
    bed: Path | None = None,
    regions: Sequence[str] = (),
    per: Per | None = None,
    strands: Strands = "both",
    context: int = 0,
    every: int | None = None,
    igv: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the log-likelihood of each record, region or base, and a sidecar.

    Args:
        model: bundle or run folder of a language model.
        fasta: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip; "-" is standard input.
        out: the table or track; its extension is its format. "-" writes TSV to standard output, without a sidecar.
        bed: score only these regions; a strand in the sixth column is the region's forward one.
        regions: score only these regions, named as samtools names them.
        per: what a row is; by default a base in a track, else a region where regions are given, else a record.
        strands: at each base the mean of both directions' log-probabilities, or one of them.
        context: bases beside each region that are read and not scored.
        every: of a masked model, how far the bases are apart that are hidden together.
        igv: a session that IGV opens, `.xml`: the genome and the track that `out` is.
        overwrite: replace an existing output, and rows that a stopped run of other work left beside it.

    Returns:
        `rows`, `bases`, `scored`, `bits`, `bits_per_base` and `seconds`, and under `text` the same for people.

    Raises:
        UserError: something about the model, the files or the output; nothing is left under `out`. Where the file is
            refused in its middle, the rows before are kept beside the output, as `NAME.partial.tsv`.
        Interrupted: stopped by Ctrl-C or SIGTERM. The rows so far are kept in the same way, and the same call goes on
            after them.
    """
    asked = {"bed": bed, "regions": regions, "per": per, "context": context}
    check_score(model=model, fasta=fasta, out=out, overwrite=overwrite, igv=igv, **asked)
    chosen = pick_device(device)
    network, bundle = GenomeLM.from_bundle(model).to(chosen), load_bundle(model).config
    scorer = make_scorer(network, chosen, int(bundle.get("window") or _DEFAULT_WINDOW), every)
    track = output_format(out) in TRACKS
    source = Source.of(fasta, bed, regions, context=context, in_order=track)
    settings = {
        "per": per or ("base" if track else "record" if source.genome is None else "region"), "strands": strands,
        "context": context, "regions": list(regions), "bed": None if bed is None else fingerprint(bed).xxh3_128,
        "every": scorer.every if isinstance(scorer, MaskedScorer) else None, "device": str(chosen),
    }  # fmt: skip
    inputs = () if bed is None else (bed,)
    job = TableJob(model, fasta, out, settings, bundle.get("training", {}).get("seed"), inputs)
    kept, summary = job.kept(overwrite=overwrite), ScoreSummary()
    work = _Scoring(job, scorer, source, summary)
    job.run(lambda whole: work.stream(whole, kept), summary)
    result = summary.result()
    job.finish(result)
    if igv is not None:
        write_session(igv, fasta, out)
    return {"out": str(out), **result, "text": summary.text(out)}


def make_scorer(
    network: GenomeLM, device: torch.device, window: int, every: int | None = None
) -> CausalScorer | MaskedScorer:
    """What scores under a model.

    Args:
        network: on `device`, in evaluation mode.
        device: where it is.
        window: bases that a masked model reads at a time.
        every: of a masked model, how far the bases are apart that are hidden together.

    Raises:
        UserError: `every` is given, and the model hides nothing.
    """
    if not network.objective.looks_ahead:
        return MaskedScorer(network, device, window, every or EVERY)
    if every is not None:
        raise UserError("--every is for masked models, and this one foretells the next base", fix="leave --every out")
    return CausalScorer(network, device)


@dataclass(frozen=True)
class _Scoring:
    """One file, from the model to the table."""

    job: TableJob
    scorer: CausalScorer | MaskedScorer
    source: Source
    summary: ScoreSummary

    def stream(self, whole: Callable[[], Any], kept: Kept | None) -> None:
        """Streams the file through the model into the table."""
        out, per, summary = self.job.out, self.job.settings["per"], self.summary
        progress = ReadingProgress(self.job.fasta, self.source.total, done="scored")
        nothing = no_scores(per, regions=self.source.genome is not None)
        opened = table_writer(
            out, nothing, lengths=self.source.lengths, keep_as=lambda: self.job.keep_as(summary)
        )  # fmt: skip
        with progress.shown(), opened as writer:
            stretches, done = self._stretches(progress), 0
            if kept is not None:
                say(f"note: going on after the {kept.rows:,} rows in {kept.path}")
                writer.take_over(kept.path)
                summary.take_over(kept.result)
                stretches, done = self._beyond(stretches, kept.rows, progress)
                progress.passed_over()
            for rows in until_refused(self._rows(stretches, progress, done)):
                with whole():
                    writer.write(rows)
                    summary.add(rows)
                progress.tick()

    def _stretches(self, progress: ReadingProgress) -> Iterator[Stretch]:
        unique = output_format(self.job.out) in TRACKS
        return self.source.stretches(unique_ids=unique, on_raw=progress.on_raw, on_pieces=progress.pieces)

    def _beyond(
        self, stretches: Iterator[Stretch], rows: int, progress: ReadingProgress
    ) -> tuple[Iterator[Stretch], int]:
        """The stretches whose rows are not all there, and how many rows of the first of them are."""
        for stretch in stretches:
            n = stretch.end - stretch.start if self.job.settings["per"] == "base" else 1
            if rows < n:
                return itertools.chain([stretch], stretches), rows
            rows -= n
            progress.advance(stretch.length, 1)
        return stretches, 0

    def _rows(
        self, stretches: Iterator[Stretch], progress: ReadingProgress, done: int
    ) -> Iterator[StretchScores | BaseScores]:
        """The rows, without the first ones, which are there already."""
        strands: Strands = self.job.settings["strands"]
        each = 2 if strands == "both" else 1
        scorer = replace(self.scorer, on_bases=lambda bases: progress.advance(bases / each))
        pieces = self._counted(score_stretches(stretches, scorer, strands), progress)
        if self.job.settings["per"] != "base":
            yield from stretch_rows(pieces, strands, regions=self.source.genome is not None)
            return
        for rows in base_rows(pieces, strands):
            if done >= len(rows):
                done -= len(rows)
                continue
            yield rows.beyond(done) if done else rows
            done = 0

    @staticmethod
    def _counted(pieces: Iterator[ScoredPiece], progress: ReadingProgress) -> Iterator[ScoredPiece]:
        for piece in pieces:
            progress.advance(0, int(piece.is_last))
            yield piece
