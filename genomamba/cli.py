"""The command line. Each command checks its arguments, imports what it needs and calls one function.

Nothing heavy is imported at the top, so that help, completion and argument errors answer at once.
Exit codes: 0 done, 2 the user's input, 3 stopped but resumable, 1 a bug.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mamba_data_prep.errors import addressed

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


class _Commands(click.Group):
    """Turns errors that are addressed to people into one message and an exit code, and leaves bugs their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output has had enough; stdout must not be flushed again when Python leaves.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except (Exception, KeyboardInterrupt) as error:
            told = addressed(error)
            if told is None:
                raise
            message, code = told
            click.echo(f"genomamba: {message}", err=True)
            ctx.exit(code)
        return result


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  genomamba pretrain --fasta hg38.fa --out runs/hg38
  genomamba pretrain --fasta hg38.fa --out runs/long --set data.window=2^17 --max-time 12h
  genomamba pretrain --out runs/hg38 --resume
  genomamba finetune table --table promoters.csv --from runs/hg38 --out runs/promoters
  genomamba finetune species --class human=human.fa --class gorilla=gorilla.fa --out runs/apes
  genomamba classify --model runs/promoters --fasta new.fa --out predictions.tsv
  genomamba info runs/hg38
  genomamba convert --model runs/hg38 --out for-transformers
""",
)
@click.version_option(package_name="seqmamba", prog_name="genomamba")
def cli() -> None:
    """Language models and classifiers for DNA on selective state space models."""


def _settings(command: CommandT) -> CommandT:
    """The options by which a command takes its configuration."""
    for option in (
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; repeatable."),
        click.option("--config", metavar="NAME|FILE", help="A preset's name or a YAML file."),
    ):
        command = option(command)
    return command


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


_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
_out_run = click.option("--out", type=_FILE, required=True, metavar="RUN", help="Folder of the run.")
_from = click.option("--from", "from_model", type=_FILE, metavar="MODEL", help="A pre-trained model or run.")
_resume = click.option("--resume", is_flag=True, help="Go on with the run in --out, from its last checkpoint.")


def _print(result: dict[str, Any], as_json: bool) -> None:
    """Prints a command's result: its `text` for people, everything else for programs."""
    if as_json:
        click.echo(jsonlib.dumps({key: value for key, value in result.items() if key != "text"}, indent=2, default=str))
    elif result.get("text"):
        click.echo(result["text"])


@cli.command(
    epilog="""\b
Examples:
  genomamba pretrain --fasta hg38.fa --out runs/hg38
  genomamba pretrain --fasta chr20.fa.gz --out runs/chr20 --set data.window=4096 --max-time 20m
  genomamba pretrain --fasta hg38.fa --bed sequences_human.bed --config genomamba-7m --out runs/7m
  genomamba pretrain --out runs/hg38 --resume
"""
)
@click.option("--fasta", type=_FILE, help="Genome: FASTA, GenBank or EMBL, also gzip or bgzip.")
@click.option("--bed", type=_FILE, help="Regions to use; a 4th column of train, valid and test sets the split.")
@click.option("--context-parallel", type=click.IntRange(1), metavar="N", help="Devices that share each window.")
@_settings
@_training
@_out_run
@_resume
@_json
def pretrain(
    fasta: Path | None,
    bed: Path | None,
    config: str | None,
    overrides: tuple[str, ...],
    out: Path,
    resume: bool,
    as_json: bool,
    context_parallel: int | None,
    **options: Any,
) -> None:
    """Train a language model on a genome, and compare it with the best Markov model of the same bases."""
    flags = {**_flags(options), "fasta": _text(fasta), "bed": _text(bed), "train.context_parallel": context_parallel}
    if fasta is None and not resume and not config and not any(text.startswith("fasta=") for text in overrides):
        raise click.UsageError("Missing option '--fasta'.")
    from genomamba.commands.pretrain import run_pretrain
    from mamba_kernels.cpu.allocator import keep_freed_memory

    keep_freed_memory()  # this process is the run's own
    _print(run_pretrain(out=out, config=config, overrides=overrides, flags=flags, resume=resume), as_json)


@cli.group()
def finetune() -> None:
    """Train a classifier, from scratch or from a pre-trained model."""


def _classifier(command: CommandT) -> CommandT:
    """The options that all kinds of fine-tuning share."""
    for option in (
        _json,
        _resume,
        _out_run,
        _training,
        _settings,
        click.option(
            "--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs, each with its own seed."
        ),
        click.option(
            "--pooling", type=click.Choice(["mean", "last", "attention"]), help="From positions to one vector."
        ),
        _from,
    ):
        command = option(command)
    return command


def _finetune(task: str, *, as_json: bool, **options: Any) -> None:
    flags = _flags(options)
    flags |= {
        f"data.{name}": options.pop(name) for name in ("strand", "sequence_column", "label_column") if name in options
    }
    from genomamba.commands.finetune import run_finetune

    _print(run_finetune(task=task, flags=flags, **options), as_json)


@finetune.command(
    epilog="""\b
Example:
  genomamba finetune species --class human=human.fa.gz --class gorilla=gorilla.fa.gz --from runs/hg38 --out runs/apes
"""
)
@click.option("--class", "classes", multiple=True, required=True, metavar="NAME=FASTA", help="A class and its genome.")
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
@click.option("--positive", type=_FILE, help="FASTA of promoters.")
@click.option("--negative", type=_FILE, help="FASTA of sequences that are none.")
@click.option("--fasta", type=_FILE, help="Genome from which promoters and negatives are cut.")
@click.option("--tss", type=_FILE, help="Transcription start sites: GTF, GFF3 or BED.")
@click.option("--strand", type=click.Choice(["plus", "minus"]), help="Strand of all start sites that name none.")
@_classifier
def promoter(**options: Any) -> None:
    """Tell promoters from other sequence."""
    by_files = options["positive"] is not None and options["negative"] is not None
    by_genome = options["fasta"] is not None and options["tss"] is not None
    if by_files == by_genome:
        raise click.UsageError("Give --positive and --negative, or --fasta and --tss.")
    _finetune("promoter", **options)


@finetune.command(
    epilog="""\b
Examples:
  genomamba finetune table --table promoters.csv --from runs/hg38 --out runs/promoters
  genomamba finetune table --table train.csv --valid dev.csv --test test.csv --seeds 3 --out runs/promoters
"""
)
@click.option("--table", type=_FILE, required=True, multiple=True, help="CSV or TSV: sequence, label[, split].")
@click.option("--valid", type=_FILE, help="Table of the validation split, if it is a file of its own.")
@click.option("--test", type=_FILE, help="Table of the test split, if it is a file of its own.")
@click.option("--sequence-column", metavar="NAME", help="The column of sequences; sequence or seq by default.")
@click.option("--label-column", metavar="NAME", help="The column of labels; label or class by default.")
@_classifier
def table(**options: Any) -> None:
    """Learn the labels of a table of sequences."""
    _finetune("table", **options)


@cli.command(
    epilog="""\b
Examples:
  genomamba classify --model runs/promoters --fasta new.fa --out predictions.tsv
  genomamba classify --model runs/apes --fasta reads.fa.gz --out predictions.parquet --both-strands --min-confidence 0.9
  genomamba classify --model runs/apes --fasta hg38.fa --region chr20:1,000,001-1,100,000 --out part.tsv
  zcat reads.fa.gz | genomamba classify --model runs/apes --fasta - --out predictions.bed
"""
)
@click.option("--model", type=_FILE, required=True, help="A classifier's bundle or run folder.")
@click.option("--fasta", type=_FILE, required=True, help="FASTA, GenBank or EMBL, also gzip; - is standard input.")
@click.option(
    "--region", "regions", multiple=True, metavar="NAME:FIRST-LAST", help="Only this stretch, 1-based; repeatable."
)
@click.option(
    "--out", type=_FILE, required=True, help="By its extension a table or track: .tsv .csv .parquet .jsonl .bed .bw."
)
@click.option("--both-strands", is_flag=True, help="Average the probabilities of both strands.")
@click.option(
    "--min-confidence", "--threshold", type=click.FloatRange(0, 1), default=0.0, help="Abstain below this confidence."
)
@click.option(
    "--min-bases", type=click.IntRange(1), default=16, show_default=True, help="Abstain on fewer known bases than this."
)
@click.option("--window", type=click.IntRange(1), help="Bases per window of long records; the model's own by default.")
@click.option("--stride", type=click.IntRange(1), help="Bases from window to window; the window by default.")
@click.option(
    "--per-window", is_flag=True, help="A row for each window rather than for each record; always so in .bed and .bw."
)
@click.option("--track", metavar="CLASS", help="The class whose probability a .bw shows; the last one by default.")
@click.option(
    "--aggregate",
    type=click.Choice(["mean", "log-mean"]),
    default="mean",
    show_default=True,
    help="How a record's windows are averaged: probabilities, or their logarithms.",
)
@click.option(
    "--batch-tokens", "--batch-bases", "batch_bases", type=click.IntRange(1), help="Bases at a time through the model."
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@_json
def classify(as_json: bool, **options: Any) -> None:
    """Predict the class of each record of a FASTA file."""
    from genomamba.commands.classify import run_classify

    _print(run_classify(**options), as_json)


@cli.command()
@click.option("--model", type=_FILE, required=True, help="A bundle or run folder.")
@click.option("--fasta", type=_FILE, help="Genome on which a language model is scored.")
@click.option("--table", type=_FILE, help="Table of sequence and label on which a classifier is scored.")
@click.option(
    "--class", "classes", multiple=True, metavar="NAME=FASTA", help="A class and sequences that belong to it."
)
@click.option("--split", default="test", show_default=True, help="Which rows or windows: train, valid, test or all.")
@click.option("--both-strands", is_flag=True, help="Average the probabilities of both strands (classifiers).")
@click.option("--out", type=_FILE, help="Folder for the report.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@_json
def evaluate(as_json: bool, **options: Any) -> None:
    """Score a model on sequence it was not trained on."""
    from genomamba.commands.evaluate import run_evaluate

    _print(run_evaluate(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba convert --model runs/hg38 --out for-transformers
  genomamba convert --model mamba-dna-hf --out models/theirs
  genomamba convert --model mamba-dna-hf --tokens A=4,C=5,G=6,T=7,N=8 --out models/theirs
"""
)
@click.option("--model", type=_FILE, required=True, help="A language model of ours, or a folder of transformers.")
@click.option("--out", type=_FILE, required=True, help="Folder to write, in the other form.")
@click.option("--tokens", "letters", metavar="A=7,C=8,...", help="Ids of the letters in a transformers model.")
@click.option(
    "--window", type=click.IntRange(16, 2**24), default=4096, show_default=True, help="Bases a model of theirs reads."
)
@click.option("--force", is_flag=True, help="Replace an existing model.")
@_json
def convert(as_json: bool, **options: Any) -> None:
    """Take a language model from or to the Mamba and Mamba-2 of Hugging Face's transformers."""
    from genomamba.commands.convert import run_convert

    _print(run_convert(**options), as_json)


@cli.command(
    epilog="""\b
Example:
  genomamba audit --fasta hg38.fa --bed sequences_human.bed --set data.window=2^17
"""
)
@click.option("--fasta", type=_FILE, required=True, help="Genome: FASTA, GenBank or EMBL, also gzip or bgzip.")
@click.option("--bed", type=_FILE, help="Regions to use; a 4th column of train, valid and test sets the split.")
@_settings
@_json
def audit(fasta: Path, bed: Path | None, config: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show how a genome is split, and prove that no base is in two splits."""
    from genomamba.commands.audit import run_audit

    flags = {"fasta": _text(fasta), "bed": _text(bed)}
    _print(run_audit(config=config, overrides=overrides, flags=flags), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba info runs/hg38
  genomamba info hg38.fa
  genomamba info genomamba-1.4m > mine.yaml
"""
)
@click.argument("what", metavar="MODEL|RUN|FASTA|PRESET")
@_json
def info(what: str, as_json: bool) -> None:
    """Tell what a model, a run, a genome or a preset is."""
    from genomamba.commands.info import run_info

    _print(run_info(what), as_json)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def main() -> None:
    """Entry point of the `genomamba` program."""
    cli(prog_name="genomamba")
