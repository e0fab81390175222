"""The pictures of the pages on `score`, `variants`, `embed` and `generate`, drawn from what these commands write.

    python -m benchmarks.pictures --chromosome chr20.fa.gz --exons RefSeqExon.bed.gz --islands CpGIsland.bed.gz \\
        --genome human=human.fa.gz --genome tuberculosis=GCF_000195955.2.fna.gz ...

Each command runs as a user would run it, with the model that ships, on stretches of these files.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genomamba.classifier.kmers import kmer_frequencies
from genomamba.commands.embed import run_embed
from genomamba.commands.generate import run_generate
from genomamba.commands.score import run_score
from genomamba.commands.variants import run_variants
from genomamba.models import model_path
from mamba_data_prep.genomes.genome import Genome

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MODEL = "human-1.4m"
STRETCH = (33_560_000, 33_600_000)
SMOOTHED = 200
SITE = (33_570_240, 33_570_300)
WINDOW, WINDOWS = 1024, 60
DRAWN = 32
WORD = 4
BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "0.55"


def main() -> None:
    """Runs the commands and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromosome", type=Path)
    parser.add_argument("--exons", type=Path)
    parser.add_argument("--islands", type=Path)
    parser.add_argument("--genome", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--only", action="append", default=[], choices=["score", "variants", "embed", "generate"])
    options = parser.parse_args()
    if options.chromosome is None:
        print("benchmarks.pictures: nothing to do without --chromosome FASTA")
        return
    genomes = {name: Path(path) for name, _, path in (one.partition("=") for one in options.genome)}
    wanted = options.only or ["score", "variants", "embed", "generate"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "score" in wanted:
            draw_score(folder, options.chromosome, options.exons, options.islands)
        if "variants" in wanted:
            draw_variants(folder, options.chromosome)
        if "embed" in wanted:
            draw_embed(folder, genomes)
        if "generate" in wanted:
            draw_generate(folder, options.chromosome)


def draw_score(folder: Path, chromosome: Path, exons: Path, islands: Path) -> None:
    """Bits a base along a stretch, with the exons and CpG islands there."""
    first, last = STRETCH
    record = Genome.open(chromosome).records[0].name
    out = folder / "bits.tsv.gz"
    run_score(
        model=model_path(MODEL), fasta=chromosome, out=out, regions=[f"{record}:{first + 1}-{last}"], per="base",
        context=4096,
    )  # fmt: skip
    bits = pd.read_csv(out, sep="\t")["bits"].to_numpy()
    means = np.nanmean(bits.reshape(-1, SMOOTHED), axis=1)
    axes, figure = _axes((9, 2.8))
    places = first + SMOOTHED * (np.arange(len(means)) + 0.5)
    axes.plot(places / 1e6, means, color=BLUE, linewidth=1)
    axes.axhline(2, color=GREY, linewidth=0.8, linestyle=":")
    for path, name, colour, height in ((exons, "exons", ORANGE, 0.35), (islands, "CpG islands", "#2ca02c", 0.2)):
        spans = _spans(path, record, STRETCH)
        axes.broken_barh([(start / 1e6, (end - start) / 1e6) for start, end in spans], (height, 0.1), color=colour)
        axes.text(last / 1e6, height + 0.05, f" {name}", va="center", fontsize="small", color=colour)
    axes.set(xlim=(first / 1e6, last / 1e6), ylim=(0.1, 2.3), xlabel=f"chromosome {record}, Mb", ylabel="bits a base")
    axes.set_title(f"What {MODEL} foretells: means of {SMOOTHED} bases", fontsize="medium")
    _save(figure, "score.png")


def draw_variants(folder: Path, chromosome: Path) -> None:
    """The log-likelihood ratio of every single change at the border of an exon."""
    first, last = SITE
    genome = Genome.open(chromosome)
    record = genome.records[0].name
    letters = genome.fetch(record, first, last).tobytes().decode()
    lines = ["##fileformat=VCFv4.3", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for place, letter in enumerate(letters):
        others = ",".join(base for base in "ACGT" if base != letter)
        lines.append(f"{record}\t{first + place + 1}\t.\t{letter}\t{others}\t.\t.\t.")
    vcf, out = folder / "all.vcf", folder / "all.tsv"
    vcf.write_text("\n".join(lines) + "\n")
    run_variants(model=model_path(MODEL), fasta=chromosome, vcf=vcf, out=out)
    table = pd.read_csv(out, sep="\t")
    grid = np.full((4, last - first), np.nan)
    for pos, alt, value in zip(table["pos"], table["alt"], table["llr"], strict=True):
        grid["ACGT".index(alt), pos - 1 - first] = value
    axes, figure = _axes((11, 2.2))
    most = float(np.nanmax(np.abs(grid)))
    picture = axes.imshow(grid, aspect="auto", cmap="RdBu", vmin=-most, vmax=most, interpolation="nearest")
    axes.set_yticks(range(4), list("ACGT"))
    axes.set_xticks(range(len(letters)), list(letters), fontsize="x-small")
    axes.set(xlabel=f"reference, chromosome {record} from {first + 1:,}", ylabel="changed to")
    figure.colorbar(picture, ax=axes, label="log-likelihood ratio, bits", pad=0.01)
    _save(figure, "variants.png")


def draw_embed(folder: Path, genomes: dict[str, Path]) -> None:
    """Vectors of windows of several genomes on their first two principal components."""
    random = np.random.default_rng(0)
    fasta, out = folder / "windows.fa", folder / "windows.npz"
    lines = []
    for name, path in genomes.items():
        genome = Genome.open(path)
        record = int(np.argmax(genome.lengths))
        found = 0
        while found < WINDOWS:
            start = int(random.integers(0, int(genome.lengths[record]) - WINDOW))
            text = genome.fetch(record, start, start + WINDOW).tobytes().decode()
            if "N" not in text:
                lines.append(f">{name}_{found}\n{text}\n")
                found += 1
    fasta.write_text("".join(lines))
    run_embed(model=model_path(MODEL), fasta=fasta, out=out)
    known = np.load(out)
    vectors = known["embedding"] - known["embedding"].mean(axis=0)
    parts, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    shown, share = parts[:, :2] * sizes[:2], sizes**2 / (sizes**2).sum()
    axes, figure = _axes((5.5, 4.2))
    labels = np.array([name.rsplit("_", 1)[0] for name in known["seq_id"]])
    for name in genomes:
        axes.scatter(*shown[labels == name].T, s=9, label=name.replace("_", " "), alpha=0.8)
    axes.set(xlabel=f"first component, {share[0]:.0%}", ylabel=f"second component, {share[1]:.0%}")
    axes.set_title(f"Vectors of {WINDOW:,} bases, {MODEL}", fontsize="medium")
    axes.legend(fontsize="small", frameon=False)
    _save(figure, "embed.png")


def draw_generate(folder: Path, chromosome: Path) -> None:
    """Frequencies of short words in what was generated and in the chromosome."""
    out = folder / "drawn.fa"
    run_generate(model=model_path(MODEL), length=2000, number=DRAWN, out=out)
    drawn = Genome.open(out)
    genome = Genome.open(chromosome)
    record = genome.records[0].name
    ours = np.mean([_words(drawn.fetch(number, 0, int(drawn.lengths[number]))) for number in range(len(drawn))], axis=0)
    theirs = _words(genome.fetch(record, 30_000_000, 40_000_000))
    axes, figure = _axes((4.6, 4.4))
    with_cpg = np.array(["CG" in _spelt(word) for word in range(4**WORD)])
    for chosen, name, colour in ((~with_cpg, "without CG", BLUE), (with_cpg, "with CG", ORANGE)):
        axes.scatter(theirs[chosen], ours[chosen], s=10, color=colour, label=f"words {name}")
    ends = np.array([min(theirs.min(), ours[ours > 0].min()), max(theirs.max(), ours.max())])
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="share in 10 Mb of chromosome 20", ylabel="share in what was generated")
    axes.set_title(f"Words of {WORD} bases, {DRAWN} sequences of {MODEL}", fontsize="medium")
    axes.legend(fontsize="small", frameon=False)
    _save(figure, "generate.png")


def _words(bases: np.ndarray) -> np.ndarray:
    return kmer_frequencies(bases, WORD)


def _spelt(word: int) -> str:
    return "".join("ACGT"[word >> (2 * place) & 3] for place in reversed(range(WORD)))


def _spans(path: Path, record: str, stretch: Sequence[int]) -> list[tuple[int, int]]:
    """Intervals of a BED file, its contigs named with or without chr, that touch a stretch."""
    found = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            name, start, end = line.split("\t")[:3]
            inside = stretch[0] < int(end) and int(start) < stretch[1]
            if inside and name.removeprefix("chr") == record.removeprefix("chr"):
                found.append((int(start), int(end)))
    return found


def _axes(size: tuple[float, float]) -> tuple[Any, Figure]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots(), figure


def _save(figure: Figure, name: str) -> None:
    figure.savefig(IMAGES / name, dpi=110)
    print(f"drawn: {IMAGES / name}")


if __name__ == "__main__":
    main()
