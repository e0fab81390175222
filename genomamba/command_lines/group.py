"""The group of all commands, and the options that several kinds of them share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from genomamba.models import model_path
from mamba_configs.command_line import Commands


class _Model(click.Path):
    """A model's folder, or the name of one that ships."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The folder that is meant."""
        return super().convert(model_path(value), param, ctx)


MODEL = _Model(path_type=Path)
CommandT = TypeVar("CommandT", bound=Callable[..., Any])
from_model = click.option(
    "--from", "from_model", type=MODEL, metavar="MODEL", help="A run, a bundle, or a model that ships."
)
resume_option = click.option("--resume", is_flag=True, help="Go on with the run in --out, from its last checkpoint.")


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


def text_of(path: Path | None) -> str | None:
    """A path as a configuration holds it."""
    return None if path is None else str(path)
