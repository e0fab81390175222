"""What it costs to score SNVs: `python -m benchmarks.variants --fasta hs37d5_chr20.fa.gz`.

Random SNVs of a genome, at random places with random alternatives, under a model that ships, on one thread. Time is the
processor's, which other work on the machine lengthens less than it does a clock's. Beside it, on some of the same SNVs,
the plain way: each allele's whole window through the model, on both strands.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import print_table, save_results
from genomamba.commands.variants import PORTION, WINDOW
from genomamba.language_model.likelihood import log2_likelihood
from genomamba.language_model.model import GenomeLM
from genomamba.models import model_path
from genomamba.variants.causal import BATCH_BASES, CausalScorer
from genomamba.variants.scores import AlleleScores, score_sites
from genomamba.variants.sites import Place, Placing, Sequences
from mamba_data_prep.genomes.genome import Genome

SEED = 0
ASKED = 10_000


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path)
    parser.add_argument("--model", default="human-1.4m")
    parser.add_argument("--snvs", type=int, default=300)
    parser.add_argument("--plain", type=int, default=48)
    options = parser.parse_args()
    if options.fasta is None:
        print("benchmarks.variants: nothing to do without --fasta GENOME")
        return
    torch.set_num_threads(1)
    model = GenomeLM.from_bundle(model_path(options.model))
    sites = random_snvs(Genome.open(options.fasta), options.snvs)
    scorer = CausalScorer(model)
    score_sites(sites[:2], scorer)  # kernels are compiled
    began = time.process_time(), time.perf_counter()
    found: list[list[AlleleScores]] = []
    for first in range(0, len(sites), PORTION):
        found += score_sites(sites[first : first + PORTION], scorer)
    shared = time.process_time() - began[0], time.perf_counter() - began[1]
    began = time.process_time(), time.perf_counter()
    plainly = plain(model, sites[: options.plain])
    each = time.process_time() - began[0], time.perf_counter() - began[1]
    apart = max(abs(one[0].ratio - ratio) for one, ratio in zip(found, plainly, strict=False))
    rows = [
        _row("the beginning shared through the state", len(sites), shared),
        _row("each allele's window whole", len(plainly), each),
    ]
    print_table(f"Random SNVs, window {WINDOW:,}, one thread", rows)
    print(f"largest difference between the two: {apart:.1e} bits")
    found_out = {"model": options.model, "window": WINDOW, "rows": rows, "largest_difference_bits": apart}
    save_results("variants", found_out, data=[options.fasta], seeds=[SEED])


def random_snvs(genome: Genome, count: int) -> list[Sequences]:
    """SNVs with their flanks, at random known places of the first record."""
    rng, placing = np.random.default_rng(SEED), Placing(genome, WINDOW)
    found: list[Sequences] = []
    while len(found) < count:
        start = int(rng.integers(genome.records[0].length))
        reference = genome.fetch(0, start, start + 1).tobytes().decode()
        if reference in "ACGT":
            alternative = "ACGT".replace(reference, "")[rng.integers(3)]
            found.append(placing.sequences(Place(0, start, reference), (alternative,)))
    return found


def plain(model: GenomeLM, sites: list[Sequences]) -> list[float]:
    """The ratios of SNVs, each allele read whole."""
    ratios = np.zeros(len(sites))
    for strand in (sites, [site.other_strand() for site in sites]):
        whole = np.stack([np.concatenate([s.before, allele, s.after]) for s in strand for allele in s.alleles])
        rows = BATCH_BASES // whole.shape[1]
        bits = np.concatenate(
            [
                log2_likelihood(model, torch.from_numpy(whole[i : i + rows])).log2_p.nansum(dim=1).numpy()
                for i in range(0, len(whole), rows)
            ]
        )
        ratios += (bits[1::2] - bits[::2]) / 2
    return ratios.tolist()


def _row(name: str, count: int, seconds: tuple[float, float]) -> dict[str, Any]:
    of_processor, of_clock = seconds
    minutes = of_processor / count * ASKED / 60
    return {
        "how": name,
        "SNVs": count,
        "processor seconds": of_processor,
        "clock seconds": of_clock,
        f"minutes for {ASKED:,}, one core": minutes,
        f"minutes for {ASKED:,}, two cores, if both are free": minutes / 2,
    }


if __name__ == "__main__":
    main()
