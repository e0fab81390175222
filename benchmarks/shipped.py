"""A pre-training run made into a model that ships: measured further, its card completed, and put into the package.

    python -m benchmarks.shipped --run RUN --name human-1.4m --other OTHER.fa.gz [--other ...] \\
        --source "human chromosome 20, GRCh37" --terms "public records, no restriction on use"

Beside what the run itself scored: bits per base by the length of the context on the run's test windows, and on other
sequences that no training has read, with the model's own counts alone and the Markov model of all training bases (order
and strength chosen on the run's validation windows). Without `--name` nothing is put into the package.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common import describe_machine, print_table, save_results
from genomamba.config import PretrainConfig
from genomamba.language_model.card import model_card
from genomamba.language_model.data import GenomeWindows, frozen, make_split, open_genome
from genomamba.language_model.markov import MarkovCounts, score, score_blocks
from genomamba.language_model.markov_of_run import affordable_order
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.objectives import is_base
from genomamba.language_model.scoring import evaluate_windows
from mamba_configs.settings import validated
from mamba_data_prep.genomes.windows import tile
from mamba_training.bundle import load_bundle, save_bundle
from mamba_training.folders import read_config

EDGES = (1, 16, 64, 256, 1024, 4096, 2**14, 2**17, 2**20)
BASES = 2**19


def main() -> None:
    """Measures, prints, records, and writes the bundle with its completed card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--other", type=Path, action="append", default=[])
    parser.add_argument("--source", default="")
    parser.add_argument("--terms", default="")
    options = parser.parse_args()
    if options.run is None:
        print("benchmarks.shipped: nothing to do without --run RUN")
        return
    settings = validated(PretrainConfig, read_config(options.run))
    model, bundle = GenomeLM.from_bundle(options.run), load_bundle(options.run)
    genome = open_genome(settings.fasta)
    split = make_split(genome, settings.data, settings.bed)
    test = GenomeWindows(genome, frozen(split.test, settings.data.final_bases))
    by_context = bits_by_context(model, test)
    print_table("Bits per base by the bases before it, on test windows", by_context)
    others = elsewhere(model, options.other, settings, GenomeWindows(genome, split.train))
    print_table("On sequences that no training has read", others)
    result = bundle.config["training"]["result"]
    rows = [
        {"model": name, "validation": f"{values['valid']:.4f}", "test": f"{values['test']:.4f}"}
        for name, values in _rows(result).items()
    ]
    name = options.name or options.run.name
    data = [Path(str(settings.fasta)), *options.other]
    curve = [{key: result[key] for key in ("step", "tokens", "seconds")}]
    found = {"name": name, "rows": rows, "by_context": by_context, "others": others, "length": curve}
    save_results(name.replace(".", "_").replace("-", "_"), found, data=data)
    if options.name:
        put(options.name, bundle.config, bundle.state, settings, (by_context, others), options)


def _rows(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    judge, alone = result["markov_all"], result["counts_alone"]
    label = f"Markov, order {judge['order']}, all training bases, both strands"
    return {
        f"Mamba with counts, {result['n_parameters']:,} parameters": {
            "valid": result["valid"]["bits"],
            "test": result["test"]["bits"],
        },
        "network off: counts in the model alone": {"valid": alone["valid_bits"], "test": alone["test_bits"]},
        label: {"valid": judge["valid_bits"], "test": judge["test_bits"]},
    }


@torch.no_grad()
def bits_by_context(model: GenomeLM, windows: GenomeWindows) -> list[dict[str, Any]]:
    """Mean bits of the bases that have so many bases before them in their window, whole and with the network off."""
    length = windows.windows.window
    sums, counts = np.zeros((2, length)), np.zeros(length)
    for block in windows.blocks(2**14):
        ids = torch.from_numpy(block)
        following = ids[:, 1:].long()
        counted = is_base(following)
        counts[1:] += counted.sum(0).numpy()
        for row, forward in enumerate((model, model.counts_alone)):
            logits = forward(ids)[:, :-1].float().transpose(1, 2)
            nats = functional.cross_entropy(logits, torch.where(counted, following, -100), reduction="none")
            sums[row, 1:] += nats.double().sum(0).numpy()
    edges = [edge for edge in EDGES if edge < length] + [length]
    rows = []
    for low, high in itertools.pairwise(edges):
        whole, alone = sums[:, low:high].sum(1) / max(1, counts[low:high].sum()) / math.log(2)
        rows.append(
            {"bases before": f"{low:,} to {high - 1:,}", "model": f"{whole:.4f}", "network off": f"{alone:.4f}"}
        )
    return rows


def elsewhere(
    model: GenomeLM, fastas: list[Path], settings: PretrainConfig, train: GenomeWindows
) -> list[dict[str, Any]]:
    """Bits per base on windows spread over other sequences, beside the counts alone and the Markov model."""
    if not fastas:
        return []
    genome = train.dataset.genome
    valid = GenomeWindows(genome, frozen(make_split(genome, settings.data, settings.bed).valid, BASES))
    counts = MarkovCounts(affordable_order(2 * train.windows.bases))
    for ids in GenomeWindows(genome, train.windows).blocks():
        counts.add(ids, both_strands=True)
    tables = counts.tables()
    order, strength, _ = score_blocks(tables, valid.blocks()).best
    rows = []
    for fasta in fastas:
        other = open_genome(fasta)
        table = tile(other, settings.data.window, max_n_fraction=settings.data.max_n_fraction)
        windows = GenomeWindows(other, frozen(table, BASES))
        markov = score(tables[: order + 1], np.concatenate(list(windows.blocks())), (strength,)).at(order, strength)
        whole, alone = evaluate_windows(model, windows), evaluate_windows(model, windows, counts_alone=True)
        rows.append(
            {
                "sequence": fasta.name,
                "bases": whole.n_bases,
                "model": f"{whole.bits:.4f}",
                "network off": f"{alone.bits:.4f}",
                f"Markov, order {order}": f"{markov:.4f}",
            }
        )
    return rows


def put(
    name: str,
    config: dict[str, Any],
    state: dict[str, Any],
    settings: PretrainConfig,
    tables: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    options: argparse.Namespace,
) -> None:
    """Writes the bundle into the package, without the paths of this machine, its card with source, terms and tables."""
    made = dict(config["training"])
    train, changed = settings.train, []
    if train.tokens_per_step != "auto":
        changed.append(f" --set train.tokens_per_step={train.tokens_per_step}")
    fasta = Path(str(settings.fasta)).name
    made["command"] = (
        f"genomamba pretrain --fasta {fasta} --out runs/{name} --max-time {train.max_time}{''.join(changed)}"
    )
    machine = describe_machine()
    made["shipped"] = {
        "source": options.source,
        "terms": options.terms,
        "machine": f"{machine['processor']}, {machine['threads']} thread(s)",
        "by_context": tables[0],
        "others": tables[1],
    }
    folder = Path(__file__).parents[1] / "genomamba" / "models" / name
    save_bundle(folder, state, {**config, "training": made}, model_card(made))
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
