"""A pre-training run made into a model that ships: measured further, its card completed, and put into the package.

    python -m benchmarks.shipped --run RUN --name human-1.4m --other OTHER.fa.gz [--other ...] \\
        --source "human chromosome 20, GRCh37" --terms "public records, no restriction on use"

Beside what the run itself scored: bits per base by the length of the context on the run's test windows, and on other
sequences that no training has read, with the model's own counts alone and the best counts of all training bases: a
Markov model, or for a masked model counts between neighbours, chosen on the run's validation windows. Without `--name`
nothing is put into the package.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common import describe_machine, print_table, save_results
from genomamba.config import PretrainConfig
from genomamba.language_model.both_sides import BothSides
from genomamba.language_model.card import model_card
from genomamba.language_model.data import GenomeWindows, frozen, make_split, open_genome
from genomamba.language_model.markov import MarkovCounts, score, score_blocks
from genomamba.language_model.markov_of_run import affordable_order
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.objectives import IGNORED
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
        put(options.name, bundle.config, bundle.state, (by_context, others), options)


def _rows(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    alone = result["counts_alone"]
    if (judge := result.get("markov_all")) is not None:
        label = f"Markov, order {judge['order']}, all training bases, both strands"
    else:
        judge = result["both_sides"]
        label = f"counts between {judge['neighbours']} bases on either side, all training bases, both strands"
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
    """Mean bits of the bases that have so many bases beside them in their window, whole and with the network off.

    For a causal model these are the bases before; for one that looks both ways those up to the nearer end.
    """
    length = windows.windows.window
    sums, counts = np.zeros((2, length)), np.zeros(length)
    causal = model.objective.looks_ahead
    place = np.arange(length)
    beside = place + 1 if causal else np.minimum(place, length - 1 - place)
    beside = np.minimum(beside, length - 1)
    for block in windows.blocks(2**14):
        question = model.objective.scoring(torch.from_numpy(block))
        counts += np.bincount(beside, (question.targets >= 0).sum(0).numpy(), length)
        for row, forward in enumerate((model, model.counts_alone)):
            logits = forward(question.inputs).float().transpose(1, 2)
            nats = functional.cross_entropy(logits, question.targets, ignore_index=IGNORED, reduction="none")
            sums[row] += np.bincount(beside, nats.double().sum(0).numpy(), length)
    found = int(np.flatnonzero(counts)[-1]) + 1
    edges = [edge for edge in EDGES if edge < found] + [found]
    rows = []
    for low, high in itertools.pairwise(edges):
        whole, alone = sums[:, low:high].sum(1) / max(1, counts[low:high].sum()) / math.log(2)
        title = "bases before" if causal else "bases up to the nearer end"
        rows.append({title: f"{low:,} to {high - 1:,}", "model": f"{whole:.4f}", "network off": f"{alone:.4f}"})
    return rows


def elsewhere(
    model: GenomeLM, fastas: list[Path], settings: PretrainConfig, train: GenomeWindows
) -> list[dict[str, Any]]:
    """Bits per base on windows spread over other sequences, beside the counts alone and the best counts of the run."""
    if not fastas:
        return []
    genome = train.dataset.genome
    plain = GenomeWindows(genome, train.windows)
    valid = GenomeWindows(genome, frozen(make_split(genome, settings.data, settings.bed).valid, BASES))
    label, judge = _markov(plain, valid) if model.objective.looks_ahead else _between(plain, valid, model)
    rows = []
    for fasta in fastas:
        other = open_genome(fasta)
        table = tile(other, settings.data.window, max_n_fraction=settings.data.max_n_fraction)
        windows = GenomeWindows(other, frozen(table, BASES))
        whole, alone = evaluate_windows(model, windows), evaluate_windows(model, windows, counts_alone=True)
        rows.append(
            {
                "sequence": fasta.name,
                "bases": whole.n_bases,
                "model": f"{whole.bits:.4f}",
                "network off": f"{alone.bits:.4f}",
                label: f"{judge(windows):.4f}",
            }
        )
    return rows


def _markov(train: GenomeWindows, valid: GenomeWindows) -> tuple[str, Callable[[GenomeWindows], float]]:
    """The Markov model of all training bases, and what it costs on other windows."""
    counts = MarkovCounts(affordable_order(2 * train.windows.bases))
    for ids in train.blocks():
        counts.add(ids, both_strands=True)
    tables = counts.tables()
    order, strength, _ = score_blocks(tables, valid.blocks()).best

    def bits(windows: GenomeWindows) -> float:
        return score(tables[: order + 1], np.concatenate(list(windows.blocks())), (strength,)).at(order, strength)

    return f"Markov, order {order}", bits


def _between(
    train: GenomeWindows, valid: GenomeWindows, model: GenomeLM
) -> tuple[str, Callable[[GenomeWindows], float]]:
    """The counts between neighbours of all training bases, and what they cost on other windows."""
    counts = BothSides(train)
    return "counts between neighbours", lambda windows: counts.judge(valid, windows, model.objective)["test_bits"]


def put(
    name: str,
    config: dict[str, Any],
    state: dict[str, Any],
    tables: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    options: argparse.Namespace,
) -> None:
    """Writes the bundle into the package, without the paths of this machine, its card with source, terms and tables."""
    made = dict(config["training"])
    made["command"] = _without_folders(made["command"], name)
    if begun := made.get("from"):
        commands = begun.get("commands") or _commands_of(name, begun["sha256"])
        made["from"] = {**begun, "commands": [_without_folders(command, name) for command in commands]}
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


def _commands_of(name: str, sha256: str) -> list[str]:
    """The commands that made the model that ships under this name now, if it is the one of these weights."""
    folder = Path(__file__).parents[1] / "genomamba" / "models" / name
    shipped = load_bundle(folder) if folder.exists() else None
    return [] if shipped is None or shipped.sha256 != sha256 else [shipped.config["training"]["command"]]


def _without_folders(command: str, name: str) -> str:
    """The command that made the model, with the names of files alone and a run of the model's name."""
    words = [Path(word).name if "/" in word else word for word in shlex.split(command)]
    if "--out" in words:
        words[words.index("--out") + 1] = f"runs/{name}"
    return shlex.join(words)


if __name__ == "__main__":
    main()
