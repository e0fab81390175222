"""Pre-training: a genome goes in, a language model and its comparison with the best Markov model come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genomamba.commands.checks import pretrain_settings
from genomamba.config import PretrainConfig, unknown_before
from genomamba.language_model import card
from genomamba.language_model.batches import BatchPlan, plan_within_memory, run_settings, words
from genomamba.language_model.beginning import Beginning
from genomamba.language_model.both_sides import BothSides
from genomamba.language_model.by_length import by_length, by_position
from genomamba.language_model.counting import OwnLeftOut, count_windows
from genomamba.language_model.data import GenomeData, GenomeWindows, frozen, make_split, open_genome
from genomamba.language_model.markov_of_run import SeenMarkov, markov_of_all
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.module import Pretraining
from genomamba.language_model.scoring import LanguageScore, bits_saved, counts_alone, evaluate_windows, judged
from genomamba.language_model.stages import Stage, all_read, make_stages
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.audit import audit
from mamba_data_prep.genomes.genome import Genome, records_without_bases
from mamba_data_prep.genomes.splits import Split
from mamba_data_prep.genomes.windows import WindowTable
from mamba_training.devices import scoring_device
from mamba_training.folders import read_config
from mamba_training.progress import say
from mamba_training.ranks import is_first_process
from mamba_training.run import RunResult, fit

_FOLLOWED_AT_VALIDATION = 50_000_000
"""The Markov baseline is brought up to date at a validation only if that takes seconds: so many bases."""


def run_pretrain(
    *,
    out: Path,
    config: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Trains a language model in the run folder `out`, or goes on with the run there.

    Args:
        out: the run folder.
        config: preset or file; when resuming, None takes the run's own configuration.
        overrides: `KEY=VALUE` texts.
        flags: dotted keys and values of dedicated options (`fasta`, `train.max_steps`, ...); None values are left out.
        resume: go on from the last checkpoint.

    Returns:
        The result for programs, and under `text` for people; empty on all but the first of several processes.

    Raises:
        UserError: the configuration, the genome, the run folder or the machine is in the way.
        Interrupted: stopped by a signal; the run can be resumed.
    """
    settings = pretrain_settings(out=out, config=config, overrides=overrides, flags=flags or {}, resume=resume)
    start = Beginning.of(settings)
    settings = start.shaped(settings)
    genome = open_genome(settings.fasta)
    split = make_split(genome, settings.data, settings.bed)
    _audit(genome, split)
    content = {"genome": genome.fingerprint.xxh3_128, **split.description["digests"], **start.content}
    settings = settings.model_copy(update={"content": content})
    train, choosing = GenomeWindows(genome, split.train), _held_out(genome, split.valid, settings)
    counts = count_windows(settings.counts, train, choosing)
    torch.manual_seed(settings.train.seed)
    model = GenomeLM(settings.model, None if counts is None else counts.shape, settings.objective)
    left_out = None if counts is None or model.table is None else OwnLeftOut(counts, model.table)
    if counts is not None and model.table is not None:
        counts.fill(model.table)
    start.give(model)
    plan = plan_within_memory(model, settings)
    stages = make_stages(model, genome, split, settings, plan)
    run, baseline = None, None
    for stage in stages:
        if len(stages) > 1:
            say(str(stage))
        model.backbone.config = stage.backbone
        data = GenomeData(
            genome,
            stage.split,
            settings.data,
            batch_size=plan.batch_size,
            seed=settings.train.seed,
            context_parallel=settings.train.context_parallel,
        )
        if model.objective.looks_ahead and len(stages) == 1:
            baseline = SeenMarkov(data.train, seed=settings.train.seed)
        run = fit(
            Pretraining(model, settings.optim, _followed(baseline, plan, data.valid), left_out),
            data,
            run_settings(out, settings, plan, resume or run is not None, stage.until),
            config=settings.model_dump(mode="json"),
            may_change=("fasta", "bed", "from_model", "train.validate_every", *_unknown_before(out, settings)),
            units=words,
        )
        if run.status != "stage":
            break
    assert run is not None  # there is a last stage
    model.backbone.config = stages[-1].backbone
    if not is_first_process():
        return {}
    if baseline is not None:
        baseline.follow(run.step * plan.windows_per_step)
    return _finish(settings, genome, stages, model, baseline, run, start)


def _followed(
    baseline: SeenMarkov | None, plan: BatchPlan, valid: GenomeWindows
) -> Callable[[int], float | None] | None:
    """What the baseline reaches on validation windows after so many steps, where finding that out is quick."""
    if baseline is None:
        return None

    def markov_bits(step: int) -> float | None:
        samples = step * plan.windows_per_step
        if baseline.to_come(samples) > _FOLLOWED_AT_VALIDATION:
            return None
        baseline.follow(samples)
        return baseline.result(valid).valid_bits

    return markov_bits


def _audit(genome: Genome, split: Split) -> None:
    report = audit(genome, split)
    if not report.ok:
        raise UserError(
            f"the split is not clean: {report}", path=genome.path,
            fix="leave --bed out, or give each base of it to one split alone",
        )  # fmt: skip
    windows = ", ".join(f"{len(table):,} {name}" for name, table in split.tables().items())
    copies = report.copies["test"]
    if (empty := records_without_bases(genome)) is not None:
        say(f"note: {empty}")
    say(
        f"{genome.path.name}: {len(genome):,} record(s), {int(genome.lengths.sum()):,} bases; windows of "
        f"{split.train.window:,}: {windows}; no base is in two splits, {copies.near:,} of {copies.compared:,} test "
        "windows repeat training sequence"
    )


def _unknown_before(out: Path, settings: PretrainConfig) -> list[str]:
    """Settings that the run's record, if there is one, is too old to name."""
    return unknown_before(read_config(out), settings) if (out / "config.yaml").is_file() else []


def _judges(
    model: GenomeLM,
    ours: LanguageScore,
    baseline: SeenMarkov | None,
    train: GenomeWindows,
    valid: GenomeWindows,
    test: GenomeWindows,
) -> dict[str, Any]:
    """The counts beside a model: Markov models of what it has read and of all, or what stands on both sides.

    Of a run in stages, whose windows overlap, what it has read is not counted.
    """
    if model.objective.looks_ahead:
        seen = {} if baseline is None else {"seen": baseline.result(valid, test)}
        return judged(ours, **seen, everything=markov_of_all(train, valid, test))
    found = BothSides(train).judge(valid, test, model.objective)
    saved, error = bits_saved(ours.window_nats, found.pop("test_nats"), ours.window_bases)
    return {"both_sides": {**found, "saved_bits": saved, "saved_bits_error": error}}


def _held_out(genome: Genome, windows: WindowTable, settings: PretrainConfig) -> GenomeWindows:
    """The held-out windows that are scored at the end."""
    return GenomeWindows(genome, frozen(windows, settings.data.final_bases))


def _context(
    genome: Genome, stages: list[Stage], model: GenomeLM, settings: PretrainConfig
) -> dict[str, list[dict[str, Any]]]:
    """What a model that was trained on several lengths makes of them."""
    if len(stages) == 1:
        return {}
    some = GenomeWindows(genome, frozen(stages[-1].split.test, settings.data.valid_bases))
    lengths = [stage.split.train.window for stage in stages]
    return {"by_length": by_length(model, some, lengths), "by_position": by_position(model, some)}


def _finish(
    settings: PretrainConfig,
    genome: Genome,
    stages: list[Stage],
    model: GenomeLM,
    baseline: SeenMarkov | None,
    run: RunResult,
    start: Beginning,
) -> dict[str, Any]:
    """Scores the best weights once on validation and on test, and writes the bundle, its card and the picture."""
    say("scoring the best weights on the validation and the test windows")
    split = stages[-1].split
    valid, test = (_held_out(genome, part, settings) for part in (split.valid, split.test))
    train = GenomeWindows(genome, split.train)
    model.to(scoring_device(settings.train.accelerator))
    scores = {"valid": evaluate_windows(model, valid), "test": evaluate_windows(model, test)}
    alone = {}
    if model.table is not None:
        parts = (evaluate_windows(model, part, counts_alone=True) for part in (valid, test))
        alone = {"counts_alone": counts_alone(model.table.shape, scores["test"], *parts)}
    result = {
        "status": run.status,
        "out": str(run.out),
        "model": str(run.out / "model"),
        "n_parameters": model.n_parameters(),
        "window": settings.data.window,
        "step": run.step,
        "best_step": run.best_step or run.step,
        "tokens": run.tokens,
        "seconds": round(run.seconds, 1),
        **{name: scored.to_dict() for name, scored in scores.items()},
        **alone,
        **_judges(model, scores["test"], baseline, train, valid, test),
        **_context(genome, stages, model, settings),
    }
    made = card.provenance(settings, genome, split, result, start.record, all_read(stages))
    card.save_language_model(run.out, model, settings, made)
    return {**result, "text": card.summary(result)}
