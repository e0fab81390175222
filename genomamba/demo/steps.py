"""`make demo`: the main job, from DNA to predictions and a picture, on sequences that ship with the package.

It runs the very commands a user would type, one after another, and draws what they wrote.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mamba_data_prep.errors import Interrupted, UserError

DATA = Path(__file__).parent / "data"
SPECIES = ("human", "ecoli", "vcholerae", "saureus", "hpylori")
MARKER = ".genomamba-demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m genomamba.demo", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write (default: %(default)s)")
    parser.add_argument("--pretrain-steps", type=int, default=150, metavar="N", help="default: %(default)s")
    parser.add_argument("--finetune-steps", type=int, default=300, metavar="N", help="default: %(default)s")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        _empty(options.out)
        for title, command in steps(options.out, options.pretrain_steps, options.finetune_steps):
            _run(title, command)
        _show(options.out, time.monotonic() - started)
    except (UserError, Interrupted) as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def steps(out: Path, pretrain_steps: int, finetune_steps: int) -> list[tuple[str, list[str]]]:
    """The demo's commands, each with a sentence that says what it is for.

    Args:
        out: the folder that the commands write to.
        pretrain_steps: optimizer steps of 8,192 bases.
        finetune_steps: optimizer steps of 16 windows of 512 bases.
    """
    classes = [word for name in SPECIES for word in ("--class", f"{name}={_shown(DATA / name)}.fa.gz")]
    human, sections = f"{_shown(DATA)}/human.fa.gz", f"{out}/sections.bed"
    pretrain = ["pretrain", "--fasta", human, "--bed", sections, "--config", "genomamba-tiny"]
    finetune = ["finetune", "species", *classes, "--from", f"{out}/pretrain"]
    finetune += ["--set", "data.window=512", "--set", "train.batch_size=16", "--set", "optim.lr=5e-3"]
    classify = ["classify", "--model", f"{out}/species", "--fasta", f"{_shown(DATA)}/mixture.fa.gz", "--both-strands"]
    return [
        (
            "1. Hold the same sections of human DNA out of both trainings that follow",
            ["audit", "--fasta", human, "--set", "data.window=512", "--sections", sections],
        ),
        (
            "2. Learn the language of human DNA: 1.2 Mb of chromosome 20",
            [*pretrain, "--max-steps", f"{pretrain_steps}", "--out", f"{out}/pretrain"],
        ),
        (
            "3. Teach that model to tell five species apart",
            [*finetune, "--max-steps", f"{finetune_steps}", "--out", f"{out}/species"],
        ),
        ("4. Classify 80 fragments it has never seen", [*classify, "--out", f"{out}/predictions.tsv"]),
    ]


def _shown(path: Path) -> Path:
    """The path as a user would type it from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _empty(out: Path) -> None:
    """Make `out` a fresh folder; one that holds anything but an earlier demo is left alone."""
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise UserError(
            "the folder holds something other than an earlier demo", path=out, fix="name another folder with --out"
        )
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def _run(title: str, command: list[str]) -> None:
    """Show and run one `genomamba` command."""
    print(f"\n== {title}\n$ genomamba {shlex.join(command)}", flush=True)
    try:
        done = subprocess.run([sys.executable, "-m", "genomamba", *command], check=False)
    except KeyboardInterrupt:
        raise Interrupted("stopped by the keyboard") from None
    if done.returncode == Interrupted.exit_code:
        raise Interrupted("stopped; `make demo` begins anew")
    if done.returncode:
        raise UserError(f"the command above failed with exit code {done.returncode}")


def _show(out: Path, seconds: float) -> None:
    from genomamba.demo.picture import draw, recognised

    right, total = recognised(out / "predictions.tsv")
    picture = draw(out)
    print(f"\n== Done in {seconds:.0f} s: {right} of {total} fragments were given their species\n")
    with (out / "predictions.tsv").open() as table:
        print("".join(itertools.islice(table, 6)))
    print(f"table    {out / 'predictions.tsv'}")
    print(f"picture  {picture}")
    print(f"models   {out / 'pretrain'}, {out / 'species'}")
    print("\nNext, with your own files:")
    print("  genomamba pretrain --fasta genome.fa --out runs/mine")
    print(f"  genomamba classify --model {out / 'species'} --fasta reads.fa --out reads.tsv")
