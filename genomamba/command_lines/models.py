"""What is asked of models, data and studies: `genomamba evaluate`, `fetch`, `audit`, `info` and their like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genomamba.command_lines.group import MODEL, cli, text_of
from genomamba.studies import lines
from mamba_configs.command_line import FILE, json_option, overwrite_option, print_result, settings_options


@cli.command(
    epilog="""\b
Examples:
  genomamba evaluate --model human-1.4m --fasta new.fa
  genomamba evaluate --model runs/promoters --table new.csv --out scores
  genomamba evaluate --model runs/apes --class human=human.fa --class gorilla=gorilla.fa
  genomamba evaluate --model runs/enhancers --intervals human_enhancers_cohn --fasta hg38.fa.gz
"""
)
@click.option("--model", type=MODEL, required=True, help="A run, a bundle, or a model that ships.")
@click.option("--fasta", type=FILE, help="Genome on which a language model is scored, or in which --intervals lie.")
@click.option("--table", type=FILE, help="Table of sequence and label on which a classifier is scored.")
@click.option(
    "--intervals", type=FILE, metavar="FOLDER", help="Labelled intervals on which a classifier is scored, with --fasta."
)
@click.option(
    "--class", "classes", multiple=True, metavar="NAME=FASTA",
    help="A class and sequences that belong to it; with --intervals the class's own genome.",
)  # fmt: skip
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

    asked = ("model", "table", "fasta", "classes", "intervals", "out", "overwrite")
    check_evaluate(**{name: options[name] for name in asked})
    from genomamba.commands.evaluate import run_evaluate

    print_result(run_evaluate(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba convert --model runs/hg38 --out for-transformers
  genomamba convert --model mamba-dna-hf --out models/theirs
  genomamba convert --model mamba-dna-hf --tokens A=4,C=5,G=6,T=7,N=8 --out models/theirs
  genomamba convert --model runs/apes --out apes.onnx
  genomamba convert --model human-1.4m --step --out human.onnx
"""
)
@click.option("--model", type=MODEL, required=True, help="A model of ours, or a folder of transformers.")
@click.option("--out", type=FILE, required=True, help="Folder to write, in the other form; or FILE.onnx.")
@click.option("--step", is_flag=True, help="ONNX of a language model that takes one token and its state at a time.")
@click.option("--tokens", "letters", metavar="A=7,C=8,...", help="Ids of the letters in a transformers model.")
@click.option(
    "--window", type=click.IntRange(16, 2**24), default=4096, show_default=True, help="Bases a model of theirs reads."
)
@overwrite_option
@json_option
def convert(as_json: bool, **options: Any) -> None:
    """Take a language model from or to Hugging Face's transformers, or any model to ONNX (a file FILE.onnx)."""
    from genomamba.commands.checks import check_convert

    check_convert(**{name: options[name] for name in ("model", "out", "overwrite", "step")})
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
@click.option(
    "--fasta", type=FILE, required=True, help="Genome: FASTA, FASTQ, GenBank, EMBL or .2bit, also gzip or bgzip."
)
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
    flags = {"fasta": text_of(fasta), "bed": text_of(bed)}
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


@cli.command(
    epilog="""\b
Examples:
  genomamba fetch
  genomamba fetch hg38-chr20 --out data
  genomamba fetch clinvar
  genomamba fetch hg38 --offline
"""
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--out", type=FILE, metavar="FOLDER", help="Where data lie; by default the cache, or $SEQMAMBA_DATA.")
@click.option("--offline", is_flag=True, help="Take what is there already; read nothing from the network.")
@json_option
def fetch(as_json: bool, **options: Any) -> None:
    """Fetch public data by name, whole and checked, or list what there is.

    A download that was stopped goes on where it was. What is there already is checked and taken.
    """
    from genomamba.commands.fetch import run_fetch

    print_result(run_fetch(**options), as_json)
