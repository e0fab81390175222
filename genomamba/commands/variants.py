"""`genomamba variants`: each allele of a VCF file beside the reference, in the genome around it, under a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from genomamba.commands.checks import check_variants
from genomamba.language_model.model import GenomeLM
from genomamba.prediction.counting import CountingProgress
from genomamba.prediction.stopping import stoppable, unstoppable
from genomamba.variants.causal import BATCH_BASES, CausalScorer
from genomamba.variants.journal import Journal
from genomamba.variants.masked import MaskedScorer
from genomamba.variants.scores import Scorer, score_variants
from genomamba.variants.sites import Placing, contig_notes
from genomamba.variants.writers import variant_writer
from mamba_data_prep.errors import Interrupted
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.vcf import VcfHeader, VcfRecord, read_vcf
from mamba_data_prep.provenance import Fingerprint, fingerprint, write_sidecar
from mamba_training.devices import pick_device
from mamba_training.progress import say

WINDOW: Final = 1024
PORTION: Final = 64
"""Records that are scored together, counted from the first: so a run that goes on computes what one run computes."""


class _Survey(NamedTuple):
    """What reading a file through has shown: all its records are well formed."""

    placing: Placing
    content: Fingerprint


def run_variants(
    *,
    model: Path,
    fasta: Path,
    vcf: Path,
    out: Path,
    window: int = WINDOW,
    batch_bases: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Scores every allele of a VCF file and writes the file again with the scores, and its sidecar.

    Args:
        model: bundle or run folder of a language model.
        fasta: the genome, plain, gzip or bgzip.
        vcf: VCF, plain, gzip or bgzip, or BCF; "-" is standard input.
        out: `.vcf`, `.vcf.gz` (bgzip, with a tabix index), `.tsv` or `.tsv.gz`; "-" is VCF on standard output.
        window: bases of the genome around an SNV, its own among them.
        batch_bases: bases at a time through the model.
        resume: go on after the scores that a stopped run left beside the output.
        overwrite: replace an existing output, and what a stopped run left.

    Returns:
        `records`, `alleles` (scored), `reasons` (alleles that are not, by reason), `mismatches`, `contigs`, `notes`,
        `seconds`, and under `text` the same for people.

    Raises:
        UserError: something about the model, a file or the output; nothing is left under `out`.
        Interrupted: stopped by Ctrl-C or SIGTERM; the scores so far stay beside the output for `resume`.
    """
    check_variants(model=model, fasta=fasta, vcf=vcf, out=out, overwrite=overwrite)
    chosen = pick_device(device)
    network = GenomeLM.from_bundle(model).to(chosen)
    genome = Genome.open(fasta)
    survey = None if str(vcf) == "-" else _survey(vcf, genome, window)
    settings = {"window": window, "batch_bases": batch_bases or BATCH_BASES, "device": str(chosen)}
    journal = None
    if survey is not None and str(out) != "-":
        of = {
            "vcf": survey.content.to_dict(), "fasta": genome.fingerprint.to_dict(),
            "model": fingerprint(model).to_dict(), **settings, "records at a time": PORTION,
        }  # fmt: skip
        journal = Journal.begin(out, of, resume=resume, overwrite=overwrite)
    job = _Job(network, genome, vcf, out, settings, journal, survey)
    result = job.run(f"{_name(model)}, window {window:,}")
    if str(out) != "-":
        read = {str(vcf): survey.content if survey else Path(vcf), str(fasta): genome.fingerprint}
        write_sidecar(out, inputs=read, model=model, extra={"settings": settings, "result": result})
    if journal is not None:
        journal.forget()
    return {"out": str(out), **result, "text": _text(result, out)}


@dataclass(frozen=True, eq=False)
class _Job:
    """One file, from the model to the output."""

    network: GenomeLM
    genome: Genome
    vcf: Path
    out: Path
    settings: Mapping[str, Any]
    journal: Journal | None
    survey: _Survey | None
    notes: list[str] = field(default_factory=list)

    def run(self, about: str) -> dict[str, Any]:
        """Streams the file through the model into the output.

        Raises:
            Interrupted: stopped.
        """
        began = time.perf_counter()
        placing = Placing(self.genome, self.settings["window"])
        try:
            with stoppable() as whole:
                self._stream(placing, about, whole)
        except KeyboardInterrupt as stop:
            with unstoppable():
                raise Interrupted(self._told(str(stop) or "the keyboard")) from None
        finally:
            if self.journal is not None:
                self.journal.close()
        return {
            "records": placing.records, "alleles": placing.alleles, "reasons": dict(placing.reasons.most_common()),
            "mismatches": placing.mismatches, "contigs": placing.contigs, "notes": self.notes,
            "seconds": time.perf_counter() - began,
        }  # fmt: skip

    def _stream(self, placing: Placing, about: str, whole: Callable[[], Any]) -> None:
        header, records = read_vcf(self.vcf)
        if self.survey is not None:
            self._note(self.survey.placing, header)
        progress = CountingProgress(None if self.survey is None else self.survey.placing.records)
        scorer = self._scorer(progress.tick)
        kept = iter(()) if self.journal is None else self.journal.chunks()
        if self.journal is not None and self.journal.records:
            say(f"note: going on after the scores of {self.journal.records:,} records in {self.journal.path}")
        with progress.shown(), variant_writer(self.out, about, self.notes) as writer:
            writer.begin(header)
            for portion in _portions(records):
                variants = [placing.variant(record) for record in portion]
                scores = next(kept, None)
                known = scores is not None
                if scores is None:
                    scores = score_variants(variants, placing, scorer)
                    with whole() if self.journal is not None else nullcontext():
                        if self.journal is not None:
                            self.journal.add(scores)
                for variant, found in zip(variants, scores, strict=True):
                    writer.write(variant, found)
                progress.advance(len(portion), done_before=known)
        if self.survey is None:
            self._note(placing, header)

    def _scorer(self, tick: Callable[[], object]) -> Scorer:
        kind = CausalScorer if self.network.objective.looks_ahead else MaskedScorer
        return kind(self.network, self.settings["batch_bases"], tick)

    def _note(self, placing: Placing, header: VcfHeader) -> None:
        """Says what a user should know of contigs and references."""
        self.notes.extend([*contig_notes(placing, header), *_mismatch_notes(placing)])
        if placing.records and not placing.alleles:
            self.notes.append("no allele of the file can be scored")
        for note in self.notes:
            say(f"note: {note}")

    def _told(self, by: str) -> str:
        if self.journal is None:
            return f"by {by}; nothing is kept of a run from standard input or to standard output"
        if not self.journal.records:
            return f"by {by}, before the first scores were done; nothing was written"
        kept = f"the scores of the first {self.journal.records:,} records are kept in {self.journal.path}"
        return f"by {by}; {kept}: run the same command with --resume to go on after them"


def _survey(vcf: Path, genome: Genome, window: int) -> _Survey:
    """Reads a file through, which finds what is wrong with it before hours are spent.

    Raises:
        UserError: a record is broken.
    """
    placing = Placing(genome, window)
    for record in read_vcf(vcf)[1]:
        placing.variant(record)
    return _Survey(placing, fingerprint(vcf))


def _portions(records: Iterator[VcfRecord]) -> Iterator[list[VcfRecord]]:
    while portion := list(islice(records, PORTION)):
        yield portion


def _mismatch_notes(placing: Placing) -> list[str]:
    count = placing.reasons["reference_mismatch"]
    if not count:
        return []
    shown = "; ".join(placing.mismatches)
    more = "; ..." if count > len(placing.mismatches) else ""
    share = count / max(1, count + placing.alleles)
    guess = ": is the file of another assembly than the genome?" if share > _SUSPICIOUS else ""
    return [f"REF is not what the genome has for {count:,} alleles, which are not scored{guess}: {shown}{more}"]


_SUSPICIOUS: Final = 0.02


def _name(model: Path) -> str:
    """What a model is called in the file's header, where no quotation mark may stand."""
    name = model.parent.name if model.name == "model" else model.name
    return name.replace('"', "")


def _text(result: Mapping[str, Any], out: Path) -> str:
    """Tells in some lines what was done."""
    lines = [
        f"{result['records']:,} records, {result['alleles']:,} alleles scored in {result['seconds']:.1f} s -> {out}",
        *(f"  {reason:<22} {count:>12,} not scored" for reason, count in result["reasons"].items()),
    ]
    return "\n".join(lines)
