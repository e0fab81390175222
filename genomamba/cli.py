"""The command line. Each command checks its arguments, imports what it needs and calls one function.

Nothing heavy is imported at the top, so that help, completion and argument errors answer at once.
Exit codes: 0 done, 2 the user's input, 3 stopped but resumable, 1 a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from genomamba.models import model_path
from genomamba.studies import lines
from mamba_configs.command_line import (
    FILE,
    Commands,
    json_option,
    overwrite_option,
    print_result,
    settings_options,
)


class _Model(click.Path):
    """A model's folder, or the name of one that ships."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The folder that is meant."""
        return super().convert(model_path(value), param, ctx)


MODEL = _Model(path_type=Path)
CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  genomamba pretrain --fasta hg38.fa --out runs/hg38
  genomamba pretrain --fasta hg38.fa --out runs/long --set data.window=2^17 --max-time 12h
  genomamba pretrain --out runs/hg38 --resume
  genomamba finetune table --table promoters.csv --from runs/hg38 --out runs/promoters
  genomamba finetune species --class human=human.fa --class gorilla=gorilla.fa --out runs/apes
  genomamba classify --model runs/promoters --fasta new.fa --out predictions.tsv
  genomamba variants --model human-1.4m --fasta hg38.fa --vcf calls.vcf.gz --out scored.vcf.gz
  genomamba info runs/hg38
  genomamba convert --model runs/hg38 --out for-transformers
""",
)
@click.version_option(package_name="seqmamba", prog_name="genomamba")
def cli() -> None:
    """Language models and classifiers for DNA on selective state space models."""


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
_from = click.option(
    "--from", "from_model", type=MODEL, metavar="MODEL", help="A run, a bundle, or a model that ships."
)
_resume = click.option("--resume", is_flag=True, help="Go on with the run in --out, from its last checkpoint.")


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
@click.option("--fasta", type=FILE, help="Genome: FASTA, GenBank or EMBL, also gzip or bgzip.")
@click.option("--bed", type=FILE, help="Regions to use; a 4th column of train, valid and test sets the split.")
@click.option("--context-parallel", type=click.IntRange(1), metavar="N", help="Devices that share each window.")
@_from
@settings_options
@_training
@_out_run
@_resume
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
    files = {"fasta": _text(fasta), "bed": _text(bed), "from_model": _text(from_model)}
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
        _resume,
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
        _from,
    ):
        command = option(command)
    return command


def _finetune(task: str, *, as_json: bool, pooling: str | None, freeze: bool | None, **options: Any) -> None:
    flags = {**_flags(options), "head.pooling": pooling, "train.freeze": freeze}
    flags |= {
        f"data.{name}": options.pop(name) for name in ("strand", "sequence_column", "label_column") if name in options
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


@cli.command(
    epilog="""\b
Examples:
  genomamba classify --model runs/promoters --fasta new.fa --out predictions.tsv
  genomamba classify --model runs/apes --fasta reads.fa.gz --out predictions.parquet --both-strands --min-confidence 0.9
  genomamba classify --model runs/apes --fasta hg38.fa --region chr20:1,000,001-1,100,000 --out part.tsv
  zcat reads.fa.gz | genomamba classify --model runs/apes --fasta - --out - | cut -f 1,7,8
"""
)
@click.option("--model", type=MODEL, required=True, help="A classifier's bundle or run folder.")
@click.option("--fasta", type=FILE, required=True, help="FASTA, GenBank or EMBL, also gzip; - is standard input.")
@click.option(
    "--region", "regions", multiple=True, metavar="NAME:FIRST-LAST", help="Only this stretch, 1-based; repeatable."
)
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="Table or track: .tsv .csv .jsonl .bed (or with .gz) .parquet .bw; - is stdout.",
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
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def classify(as_json: bool, **options: Any) -> None:
    """Predict the class of each record of a FASTA file."""
    from genomamba.commands.checks import check_classify

    check_classify(**{name: options[name] for name in ("model", "fasta", "out", "overwrite")})
    to_stdout = str(options["out"]) == "-"
    if to_stdout and as_json:
        from mamba_data_prep.errors import UserError

        raise UserError("--json and --out - both write to standard output", fix="write the table to a file")
    from genomamba.commands.classify import run_classify

    result = run_classify(**options)
    if to_stdout:
        click.echo(result["text"], err=True)
    else:
        print_result(result, as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba explain --model runs/promoters --fasta promoters.fa --out why
  genomamba explain --model human-1.4m --fasta hg38.fa --region chr17:43,044,295-43,045,294 --out brca1
  genomamba explain --model runs/apes --fasta new.fa --method memory --out memory
"""
)
@click.option("--model", type=MODEL, required=True, help="A classifier or a language model.")
@click.option("--fasta", type=FILE, required=True, help="FASTA, GenBank or EMBL, also gzip.")
@click.option("--bed", type=FILE, help="Only these stretches.")
@click.option(
    "--region", "regions", multiple=True, metavar="NAME:FIRST-LAST", help="Only this stretch, 1-based; repeatable."
)
@click.option(
    "--method", "methods", multiple=True, type=click.Choice(["ism", "gradient", "integrated", "memory"]),
    help="Mutagenesis, gradient x input, integrated gradients, what the layers remember; repeatable, all by default.",
)  # fmt: skip
@click.option("--class", "class_name", metavar="NAME", help="The class to explain; by default the one predicted.")
@click.option("--out", type=FILE, required=True, metavar="FOLDER", help="Tables, tracks, pictures and report.html.")
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def explain(as_json: bool, **options: Any) -> None:
    """Show which bases decide, and what the layers remember."""
    from genomamba.commands.checks import check_explain

    check_explain(**{name: options[name] for name in ("model", "fasta", "bed", "out", "overwrite")})
    from genomamba.commands.explain import run_explain

    print_result(run_explain(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba variants --model human-1.4m --fasta hg38.fa --vcf calls.vcf.gz --out scored.vcf.gz
  genomamba variants --model human-1.4m --fasta hg38.fa --vcf calls.vcf.gz --out scored.vcf.gz --resume
  genomamba variants --model runs/hg38 --fasta hg38.fa --vcf calls.vcf --window 4096 --out scores.tsv
  bcftools view -r 17 all.bcf | genomamba variants --model human-1.4m --fasta hg38.fa --vcf - --out 17.vcf
"""
)
@click.option("--model", type=MODEL, required=True, help="A language model: a run, a bundle, or one that ships.")
@click.option("--fasta", type=FILE, required=True, help="The genome that REF is of: FASTA, also gzip or bgzip.")
@click.option(
    "--vcf", type=FILE, required=True, help="VCF 4.x, also gzip or bgzip, or BCF (with pysam); - is standard input."
)
@click.option(
    "--out",
    type=FILE,
    required=True,
    help=".vcf.gz (bgzip, with a tabix index), .vcf, .tsv or .tsv.gz; - is VCF on stdout.",
)
@click.option(
    "--window",
    type=click.IntRange(2, 2**20),
    default=1024,
    show_default=True,
    help="Bases of the genome around an SNV, half of them before it; indels have the same flanks.",
)
@click.option("--batch-bases", type=click.IntRange(1), help="Bases at a time through the model.")
@click.option("--resume", is_flag=True, help="Go on after the scores that a stopped run left beside --out.")
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def variants(as_json: bool, **options: Any) -> None:
    """Score each allele of a VCF file against the reference, in the genome around it.

    Every alternative allele gets a log-likelihood ratio in bits, on each strand and in the mean: negative where the
    model expects the reference. What cannot be scored is passed through with its reason.
    """
    from genomamba.commands.checks import check_variants

    check_variants(**{name: options[name] for name in ("model", "fasta", "vcf", "out", "overwrite")})
    to_stdout = str(options["out"]) == "-"
    if to_stdout and as_json:
        from mamba_data_prep.errors import UserError

        raise UserError("--json and --out - both write to standard output", fix="write the scores to a file")
    from genomamba.commands.variants import run_variants

    result = run_variants(**options)
    if to_stdout:
        click.echo(result["text"], err=True)
    else:
        print_result(result, as_json)


@cli.command()
@click.option("--model", type=MODEL, required=True, help="A run, a bundle, or a model that ships.")
@click.option("--fasta", type=FILE, help="Genome on which a language model is scored.")
@click.option("--table", type=FILE, help="Table of sequence and label on which a classifier is scored.")
@click.option(
    "--class", "classes", multiple=True, metavar="NAME=FASTA", help="A class and sequences that belong to it."
)
@click.option(
    "--split", help="Rows or windows: train, valid, test or all; by default test where there is one, otherwise all."
)
@click.option("--sequence-column", metavar="NAME", help="The column of sequences; sequence or seq by default.")
@click.option("--label-column", metavar="NAME", help="The column of labels; label or class by default.")
@click.option("--both-strands", is_flag=True, help="Average the probabilities of both strands (classifiers).")
@click.option("--out", type=FILE, help="Folder for the report.")
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def evaluate(as_json: bool, **options: Any) -> None:
    """Score a model on sequence it was not trained on."""
    from genomamba.commands.checks import check_evaluate

    check_evaluate(**{name: options[name] for name in ("model", "table", "fasta", "classes", "out", "overwrite")})
    from genomamba.commands.evaluate import run_evaluate

    print_result(run_evaluate(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba convert --model runs/hg38 --out for-transformers
  genomamba convert --model mamba-dna-hf --out models/theirs
  genomamba convert --model mamba-dna-hf --tokens A=4,C=5,G=6,T=7,N=8 --out models/theirs
"""
)
@click.option("--model", type=MODEL, required=True, help="A language model of ours, or a folder of transformers.")
@click.option("--out", type=FILE, required=True, help="Folder to write, in the other form.")
@click.option("--tokens", "letters", metavar="A=7,C=8,...", help="Ids of the letters in a transformers model.")
@click.option(
    "--window", type=click.IntRange(16, 2**24), default=4096, show_default=True, help="Bases a model of theirs reads."
)
@overwrite_option
@json_option
def convert(as_json: bool, **options: Any) -> None:
    """Take a language model from or to the Mamba and Mamba-2 of Hugging Face's transformers."""
    from genomamba.commands.checks import check_convert

    check_convert(**{name: options[name] for name in ("model", "out", "overwrite")})
    from genomamba.commands.convert import run_convert

    print_result(run_convert(**options), as_json)


@cli.command(
    epilog="""\b
Example:
  genomamba audit --fasta hg38.fa --bed sequences_human.bed --set data.window=2^17
  genomamba audit --fasta chr20.fa --from runs/hg38
  genomamba audit --fasta human.fa.gz --set data.window=512 --sections human.bed
"""
)
@click.option("--fasta", type=FILE, required=True, help="Genome: FASTA, GenBank or EMBL, also gzip or bgzip.")
@click.option("--bed", type=FILE, help="Regions to use; a 4th column of train, valid and test sets the split.")
@click.option("--from", "from_model", type=MODEL, metavar="MODEL", help="Tell how much of each split it has read.")
@click.option(
    "--sections",
    type=FILE,
    metavar="FILE.bed",
    help="Split into the sections that finetune cuts with this window, and write them, for pretrain --bed.",
)
@overwrite_option
@settings_options
@json_option
def audit(fasta: Path, bed: Path | None, config: str | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Show how a genome is split, and prove that no base is in two splits."""
    from genomamba.commands.checks import check_audit
    from genomamba.config import load_config

    as_json = options.pop("as_json")
    flags = {"fasta": _text(fasta), "bed": _text(bed)}
    load_config(config, overrides, flags=flags)
    check_audit(fasta=fasta, bed=bed, **options)
    from genomamba.commands.audit import run_audit

    options.pop("overwrite")
    print_result(run_audit(config=config, overrides=overrides, flags=flags, **options), as_json)


@cli.command(
    epilog=f"""\b
Studies:
{lines()}

\b
Examples:
  genomamba reproduce promoters --data data --out runs/promoters
  genomamba reproduce promoters --data data --seeds 5 --minutes 20 --out runs/promoters
  genomamba reproduce promoters --out runs/promoters --resume
"""
)
@click.argument("name", metavar="STUDY")
@click.option("--data", type=FILE, metavar="FOLDER", help="Where its files are; the error names those missing.")
@click.option("--seeds", type=click.IntRange(1), help="Fits of each kind, each with its own seed.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Minutes for each fit.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; repeatable.")
@click.option("--out", type=FILE, required=True, metavar="FOLDER", help="Folder of its fits, table, plot and page.")
@click.option("--resume", is_flag=True, help="Go on with the study in --out; finished fits are kept.")
@json_option
def reproduce(as_json: bool, seeds: int | None, minutes: float | None, **options: Any) -> None:
    """Run a study again: its fits, its table with intervals, its plot and its page.

    Fits that are finished are kept in the folder, and --resume goes on after them. Another number of minutes, seeds or
    another setting makes those fits anew that depend on it.
    """
    flags = {"seeds": seeds, "minutes": minutes}
    from genomamba.commands.reproduce import run_reproduce, study_settings

    study_settings(flags=flags, **options)
    print_result(run_reproduce(flags=flags, **options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba info runs/hg38
  genomamba info hg38.fa
  genomamba info genomamba-1.4m > mine.yaml
"""
)
@click.argument("what", metavar="MODEL|RUN|FASTA|PRESET")
@json_option
def info(what: str, as_json: bool) -> None:
    """Tell what a model, a run, a genome or a preset is."""
    from genomamba.commands.info import run_info

    print_result(run_info(what), as_json)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def main() -> None:
    """Entry point of the `genomamba` program."""
    cli(prog_name="genomamba")
