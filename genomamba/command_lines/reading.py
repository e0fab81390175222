"""What reads or writes sequences with a model: `genomamba classify`, `score`, `variants` and their like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genomamba.command_lines.group import MODEL, CommandT, cli
from mamba_configs.command_line import FILE, json_option, overwrite_option, print_result


def _refuse_json_to_stdout(out: Path, as_json: bool) -> None:
    if str(out) == "-" and as_json:
        from mamba_data_prep.errors import UserError

        raise UserError("--json and --out - both write to standard output", fix="write the table to a file")


def _print_table_result(result: dict[str, Any], out: Path, as_json: bool) -> None:
    """Tells what was done, on standard error where standard output holds the table."""
    if str(out) == "-":
        click.echo(result["text"], err=True)
    else:
        print_result(result, as_json)


def _some_regions(command: CommandT) -> CommandT:
    """The options that name regions of a file."""
    regions = click.option(
        "--region", "--regions", "regions", multiple=True, metavar="NAME:FIRST-LAST[:STRAND]",
        help="Only this stretch, 1-based, with or without a strand, such as chr20:1,001-2,000:-; repeatable.",
    )  # fmt: skip
    bed = click.option("--bed", type=FILE, help="Only these regions; a strand in the sixth column is kept.")
    return bed(regions(command))


_language_model = click.option(
    "--model", type=MODEL, required=True, help="A language model: a run, a bundle, or a model that ships."
)
_igv = click.option("--igv", type=FILE, metavar="FILE.xml", help="A session that IGV opens: the genome and the track.")
_typical = click.option(
    "--min-typicality", type=click.FloatRange(0, 1), default=0.0,
    help="Abstain on what is less typical of the training data; of like sequences at most 1 in 100 is below 0.01.",
)  # fmt: skip
_sequences = click.option(
    "--fasta", type=FILE, required=True, help="FASTA, FASTQ, GenBank, EMBL or .2bit, also gzip; - is standard input."
)


@cli.command(
    epilog="""\b
Examples:
  genomamba classify --model runs/promoters --fasta new.fa --out predictions.tsv
  genomamba classify --model runs/apes --fasta reads.fa.gz --out predictions.parquet --both-strands --min-confidence 0.9
  genomamba classify --model runs/apes --fasta hg38.fa --region chr20:1,000,001-1,100,000 --out part.tsv
  genomamba classify --model runs/promoters --fasta hg38.fa --bed candidates.bed --out candidates.tsv
  zcat reads.fa.gz | genomamba classify --model runs/apes --fasta - --out - | cut -f 1,7,8
"""
)
@click.option("--model", type=MODEL, required=True, help="A classifier's bundle or run folder.")
@_sequences
@_some_regions
@click.option(
    "--out",
    type=FILE,
    required=True,
    help="Table or track: .tsv .csv .jsonl .bed .gff3 (or with .gz) .parquet .bw; - is stdout.",
)
@click.option("--both-strands", is_flag=True, help="Average the probabilities of both strands.")
@click.option(
    "--min-confidence", "--threshold", type=click.FloatRange(0, 1), default=0.0, help="Abstain below this confidence."
)
@_typical
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
@click.option("--kraken-report", type=FILE, metavar="FILE", help="How many of each class, as Kraken reports it.")
@_igv
@click.option("--report", type=FILE, metavar="FILE.html", help="A page on the table: classes, confidence, lengths.")
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def classify(as_json: bool, **options: Any) -> None:
    """Predict the class of each record of a FASTA file, or of each region of a BED file."""
    from genomamba.commands.checks import check_classify

    asked = ("model", "fasta", "out", "bed", "regions", "kraken_report", "report", "igv", "overwrite")
    check_classify(**{name: options[name] for name in asked})
    _refuse_json_to_stdout(options["out"], as_json)
    from genomamba.commands.classify import run_classify

    _print_table_result(run_classify(**options), options["out"], as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba rethreshold predictions.tsv --min-confidence 0.9 --out sure.tsv
  genomamba rethreshold predictions.tsv --min-typicality 0.01 --out known.tsv
  genomamba rethreshold predictions.parquet --min-confidence 0.8 --out sure.gff3 --kraken-report sure.kreport
"""
)
@click.argument("table", type=FILE)
@click.option("--min-confidence", type=click.FloatRange(0, 1), default=0.0, help="Abstain below this confidence.")
@_typical
@click.option("--out", type=FILE, required=True, help="Table: .tsv .csv .jsonl .bed .gff3 (or with .gz) .parquet.")
@click.option("--kraken-report", type=FILE, metavar="FILE", help="How many of each class, as Kraken reports it.")
@click.option("--report", type=FILE, metavar="FILE.html", help="A page on the table: classes, confidence, lengths.")
@overwrite_option
@json_option
def rethreshold(as_json: bool, **options: Any) -> None:
    """Decide a table of predictions anew, without running the model again."""
    from genomamba.commands.checks import check_rethreshold

    check_rethreshold(**{name: options[name] for name in ("table", "out", "kraken_report", "report", "overwrite")})
    from genomamba.commands.rethreshold import run_rethreshold

    print_result(run_rethreshold(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba score --model human-1.4m --fasta new.fa --out scores.tsv
  genomamba score --model human-1.4m --fasta hg38.fa --bed enhancers.bed --context 4096 --out enhancers.tsv
  genomamba score --model human-1.4m --fasta hg38.fa --region chr20:1-1,000,000 --out chr20.bw
"""
)
@_language_model
@_sequences
@_some_regions
@click.option(
    "--out", type=FILE, required=True,
    help="Table or track: .tsv .csv .jsonl .bedgraph (or with .gz) .parquet .bw; - is stdout.",
)  # fmt: skip
@click.option(
    "--per", type=click.Choice(["record", "region", "base"]),
    help="What a row is; by default a base in a track, else a region where regions are given, else a record.",
)  # fmt: skip
@click.option(
    "--strands", type=click.Choice(["both", "forward", "reverse"]), default="both", show_default=True,
    help="At each base the mean of both directions' log-probabilities, or one of them.",
)  # fmt: skip
@click.option("--context", type=click.IntRange(0), default=0, help="Bases beside each region to read and not to score.")
@click.option("--every", type=click.IntRange(2), metavar="K", help="Masked models: hide every K-th base in turn; 8.")
@_igv
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def score(as_json: bool, **options: Any) -> None:
    """Tell the log-likelihood of each record, region or base of a FASTA file under a language model, in bits."""
    from genomamba.commands.checks import check_score

    names = ("model", "fasta", "out", "bed", "regions", "per", "context", "overwrite", "igv")
    check_score(**{name: options[name] for name in names})
    _refuse_json_to_stdout(options["out"], as_json)
    from genomamba.commands.score import run_score

    _print_table_result(run_score(**options), options["out"], as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba embed --model human-1.4m --fasta promoters.fa --out promoters.npz
  genomamba embed --model human-bi-1.4m --fasta hg38.fa --bed enhancers.bed --context 1000 --out enhancers.h5ad
  genomamba embed --model human-1.4m --fasta new.fa --per position --layer 6 --out positions.parquet
"""
)
@click.option("--model", type=MODEL, required=True, help="A language model or a classifier.")
@_sequences
@_some_regions
@click.option("--out", type=FILE, required=True, help=".npz, .parquet, or .h5ad (with the extra h5ad).")
@click.option(
    "--per", type=click.Choice(["record", "region", "position"]),
    help="What a row is; by default a region where regions are given, else a record. Positions need .parquet.",
)  # fmt: skip
@click.option(
    "--layer", type=int, metavar="K", help="After block K, 0 being before the first; by default the normalised end."
)
@click.option(
    "--pooling", type=click.Choice(["mean", "max", "last"]), default="mean", show_default=True,
    help="How positions become one vector.",
)  # fmt: skip
@click.option(
    "--strands", type=click.Choice(["both", "forward", "reverse"]), default="both", show_default=True,
    help="The mean of both strands' vectors, or one of them.",
)  # fmt: skip
@click.option("--context", type=click.IntRange(0), default=0, help="Bases beside each region to read and not to pool.")
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def embed(as_json: bool, **options: Any) -> None:
    """Write a vector for each record, region or position of a FASTA file."""
    from genomamba.commands.checks import check_embed

    names = ("model", "fasta", "out", "bed", "regions", "per", "context", "overwrite")
    check_embed(**{name: options[name] for name in names})
    from genomamba.commands.embed import run_embed

    print_result(run_embed(**options), as_json)


@cli.command(
    epilog="""\b
Examples:
  genomamba explain --model runs/promoters --fasta promoters.fa --out why
  genomamba explain --model human-1.4m --fasta hg38.fa --region chr17:43,044,295-43,045,294 --out brca1
  genomamba explain --model runs/apes --fasta new.fa --method memory --out memory
"""
)
@click.option("--model", type=MODEL, required=True, help="A classifier or a language model.")
@click.option("--fasta", type=FILE, required=True, help="FASTA, FASTQ, GenBank, EMBL or .2bit, also gzip.")
@_some_regions
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

    check_explain(**{name: options[name] for name in ("model", "fasta", "bed", "regions", "out", "overwrite")})
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


@cli.command(
    epilog="""\b
Examples:
  genomamba generate --model human-1.4m --length 2000 --number 10 --out random.fa
  genomamba generate --model human-1.4m --prompt starts.fa --length 500 --top-p 0.9 --with-prompt --out longer.fa
  genomamba generate --model runs/hg38 --prompt starts.fa --length 100 --temperature 0 --out likeliest.fa
"""
)
@click.option(
    "--model", type=MODEL, required=True, help="A language model that foretells the next base: a run, a bundle, or one "
    "that ships.",
)  # fmt: skip
@click.option(
    "--prompt", type=FILE, help="FASTA; each record is gone on with. By default sequences begin from nothing."
)
@click.option("--length", type=click.IntRange(1), required=True, help="Bases to generate for each sequence.")
@click.option(
    "--number", type=click.IntRange(1), default=1, show_default=True, help="Sequences for each prompt, all different."
)
@click.option(
    "--temperature", type=click.FloatRange(0, 100), default=1.0, show_default=True,
    help="Below 1 likelier bases are drawn still more often; 0 always takes the likeliest.",
)  # fmt: skip
@click.option(
    "--top-k", type=click.IntRange(1, 4), default=4, show_default=True, help="Draw only the K likeliest bases."
)
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
    help="Draw only the likeliest bases that have this probability together.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed, the same sequences.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Sequences drawn side by side.")
@click.option("--with-prompt", is_flag=True, help="Write the prompt's bases before those that go on from it.")
@click.option("--out", type=FILE, required=True, help=".fa or .fasta, also .gz.")
@overwrite_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def generate(as_json: bool, **options: Any) -> None:
    """Draw new sequences from a language model, base by base."""
    from genomamba.commands.checks import check_generate

    check_generate(**{name: options[name] for name in ("model", "prompt", "out", "overwrite")})
    from genomamba.commands.generate import run_generate

    print_result(run_generate(**options), as_json)
