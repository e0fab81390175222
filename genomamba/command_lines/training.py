"""`genomamba pretrain` and `finetune`: what trains a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genomamba.command_lines.group import CommandT, cli, from_model, resume_option, text_of
from mamba_configs.command_line import FILE, json_option, print_result, settings_options


def _training(command: CommandT) -> CommandT:
    """The options that every training command takes; each is short for a `--set train.*`."""
    for option in (
        click.option("--workers", type=click.IntRange(0), help="Processes that read windows (data.workers)."),
        click.option("--precision", metavar="NAME", help="auto, 32-true, bf16-mixed, bf16-true or 64-true."),
        click.option("--strategy", metavar="NAME", help="auto, ddp, fsdp or another strategy of Lightning."),
        click.option("--devices", metavar="N|auto", help="How many devices; auto takes all GPUs, or the CPU."),
        click.option("--seed", type=click.IntRange(0), help="Seed of weights, order and augmentation."),
        click.option("--max-time", metavar="TIME", help="Stop after so long: 90s, 20m, 2h, 1h30m."),
        click.option("--max-steps", type=click.IntRange(1), help="Stop after so many optimizer steps."),
    ):
        command = option(command)
    return command


def _flags(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options of `_training` out of a command's options, as dotted keys of the configuration."""
    names = ("max_steps", "max_time", "seed", "devices", "strategy", "precision")
    flags = {f"train.{name}": options.pop(name) for name in names}
    return {**flags, "data.workers": options.pop("workers")}


_out_run = click.option("--out", type=FILE, required=True, metavar="RUN", help="Folder of the run.")


@cli.command(
    epilog="""\b
Examples:
  genomamba pretrain --fasta hg38.fa --out runs/hg38
  genomamba pretrain --fasta chr20.fa.gz --out runs/chr20 --set data.window=4096 --max-time 20m
  genomamba pretrain --fasta hg38.fa --bed sequences_human.bed --config genomamba-7m --out runs/7m
  genomamba pretrain --fasta mouse.fa --from human-1.4m --max-time 1h --out runs/mouse
  genomamba pretrain --out runs/hg38 --resume
"""
)
@click.option("--fasta", type=FILE, help="Genome: FASTA, FASTQ, GenBank, EMBL or .2bit, also gzip or bgzip.")
@click.option("--bed", type=FILE, help="Regions to use; a 4th column of train, valid and test sets the split.")
@click.option("--context-parallel", type=click.IntRange(1), metavar="N", help="Devices that share each window.")
@from_model
@settings_options
@_training
@_out_run
@resume_option
@json_option
def pretrain(
    fasta: Path | None,
    bed: Path | None,
    from_model: Path | None,
    config: str | None,
    overrides: tuple[str, ...],
    out: Path,
    resume: bool,
    as_json: bool,
    context_parallel: int | None,
    **options: Any,
) -> None:
    """Train a language model on a genome, and compare it with the best Markov model of the same bases."""
    files = {"fasta": text_of(fasta), "bed": text_of(bed), "from_model": text_of(from_model)}
    flags = {**_flags(options), **files, "train.context_parallel": context_parallel}
    from genomamba.commands.checks import pretrain_settings

    pretrain_settings(out=out, config=config, overrides=overrides, flags=flags, resume=resume)
    from genomamba.commands.pretrain import run_pretrain
    from mamba_kernels.cpu.allocator import keep_freed_memory

    keep_freed_memory()  # this process is the run's own
    print_result(run_pretrain(out=out, config=config, overrides=overrides, flags=flags, resume=resume), as_json)


@cli.group()
def finetune() -> None:
    """Train a classifier, from scratch or from a pre-trained model."""


def _classifier(command: CommandT) -> CommandT:
    """The options that all kinds of fine-tuning share."""
    for option in (
        json_option,
        resume_option,
        _out_run,
        _training,
        settings_options,
        click.option("--seeds", type=click.IntRange(1), help="Runs, each with its own seed; 1 by default."),
        click.option(
            "--pooling",
            type=click.Choice(["mean", "last", "attention", "scales"]),
            help="From positions to a vector.",
        ),
        click.option(
            "--freeze", is_flag=True, default=None, help="Fit only a head, on features of the model as it is."
        ),
        from_model,
    ):
        command = option(command)
    return command


def _finetune(task: str, *, as_json: bool, pooling: str | None, freeze: bool | None, **options: Any) -> None:
    flags = {**_flags(options), "head.pooling": pooling, "train.freeze": freeze}
    flags |= {
        f"data.{name}": options.pop(name)
        for name in ("strand", "split", "sequence_column", "label_column")
        if name in options
    }
    from genomamba.classifier.request import resolve

    own = ("out", "config", "overrides", "from_model", "seeds", "resume")
    inputs = {name: options.pop(name) for name in list(options) if name not in own}
    resolve(task=task, flags=flags, inputs=inputs, **options)
    from genomamba.commands.finetune import run_finetune

    print_result(run_finetune(task=task, flags=flags, **inputs, **options), as_json)


@finetune.command(
    epilog="""\b
Example:
  genomamba finetune species --class human=human.fa.gz --class gorilla=gorilla.fa.gz --from runs/hg38 --out runs/apes
"""
)
@click.option("--class", "classes", multiple=True, metavar="NAME=FASTA", help="A class and its genome; repeatable.")
@_classifier
def species(**options: Any) -> None:
    """Tell from which genome a window of DNA comes."""
    _finetune("species", **options)


@finetune.command(
    epilog="""\b
Examples:
  genomamba finetune promoter --positive promoters.fa --negative other.fa --from runs/hg38 --out runs/promoters
  genomamba finetune promoter --fasta hg19.fa --tss refGene.gtf.gz --out runs/promoters
"""
)
@click.option("--positive", type=FILE, help="FASTA of promoters.")
@click.option("--negative", type=FILE, help="FASTA of sequences that are none.")
@click.option("--fasta", type=FILE, help="Genome from which promoters and negatives are cut.")
@click.option("--tss", type=FILE, help="Transcription start sites: GTF, GFF3 or BED.")
@click.option("--strand", type=click.Choice(["plus", "minus"]), help="Strand of all start sites that name none.")
@_classifier
def promoter(**options: Any) -> None:
    """Tell promoters from other sequence."""
    _finetune("promoter", **options)


@finetune.command(
    epilog="""\b
Examples:
  genomamba finetune table --table promoters.csv --from runs/hg38 --out runs/promoters
  genomamba finetune table --table train.csv --valid dev.csv --test test.csv --seeds 3 --out runs/promoters
  genomamba finetune table --out runs/promoters --resume
"""
)
@click.option("--table", type=FILE, multiple=True, help="CSV or TSV: sequence, label[, split]; repeatable.")
@click.option("--valid", type=FILE, help="Table of the validation split, if it is a file of its own.")
@click.option("--test", type=FILE, help="Table of the test split, if it is a file of its own.")
@click.option("--sequence-column", metavar="NAME", help="The column of sequences; sequence or seq by default.")
@click.option("--label-column", metavar="NAME", help="The column of labels; label or class by default.")
@_classifier
def table(**options: Any) -> None:
    """Learn the labels of a table of sequences."""
    _finetune("table", **options)


@finetune.command(
    epilog="""\b
Examples:
  genomamba finetune intervals --intervals human_nontata_promoters --fasta hg38.fa.gz --out runs/promoters
  genomamba finetune intervals --intervals human_enhancers_cohn --fasta hg38.fa.gz --split chromosomes --out runs/by
  genomamba finetune intervals --intervals human_or_worm --class human=hg38.fa.gz --class worm=ce11.fa --out runs/which
"""
)
@click.option(
    "--intervals", type=FILE, metavar="FOLDER", help="{train,test}/CLASS.csv.gz of id, region, start, end, strand."
)
@click.option("--fasta", type=FILE, help="Their genome: FASTA, GenBank, EMBL or .2bit, also gzip.")
@click.option("--class", "classes", multiple=True, metavar="NAME=FASTA", help="A class and its own genome; repeatable.")
@click.option(
    "--split", type=click.Choice(["official", "chromosomes"]),
    help="As the folder says, with a part of train for validation (the default), or whole chromosomes.",
)  # fmt: skip
@_classifier
def intervals(**options: Any) -> None:
    """Learn labelled intervals of a genome, laid out as in GenomicBenchmarks."""
    _finetune("intervals", **options)
