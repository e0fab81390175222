"""Foreign sequences told from a classifier's own: typicality, beside what the confidence of a k-mer regression tells.

    python -m benchmarks.typicality --class leprae=a.fa.gz --class tuberculosis=b.fa.gz --foreign human=chr20.fa.gz ...

The classes' genomes are split as `finetune species` splits them. Foreign are windows of other genomes, letters at
random, test windows with their bases shuffled, and short repeats. No network is trained: typicality needs none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.common import print_table, save_results
from genomamba import tokens
from genomamba.classifier.config import FinetuneData
from genomamba.classifier.kmers import kmer_baseline, kmer_table, merged_strands
from genomamba.classifier.tasks.genomes import species_data
from genomamba.classifier.typicality import UNLIKE, Typicality
from mamba_data_prep.genomes.fasta import stream_fasta

LETTERS = np.frombuffer(b"ACGT", np.uint8)
MOST = 1000
EXAMPLES = 6000
LONGEST_UNIT = 6


def main() -> None:
    """Fits, scores, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="classes", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--foreign", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--window", dest="windows", type=int, action="append", default=[])
    options = parser.parse_args()
    if not options.classes:
        print("benchmarks.typicality: nothing to do without --class NAME=FILE")
        return
    classes, foreign = _files(options.classes), _files(options.foreign)
    rows = []
    for window in options.windows or (256, 1024, 4096):
        rows += scored({name: [path] for name, path in classes.items()}, foreign, window)
        print_table(f"Typicality, windows of {window:,}", [row for row in rows if row["window"] == window])
    name = "typicality_" + "_".join(classes)
    save_results(name, {"classes": list(classes), "rows": rows}, data=[*classes.values(), *foreign.values()], seeds=[0])


def scored(classes: dict[str, list[Path]], foreign: dict[str, Path], window: int) -> list[dict[str, Any]]:
    """A row for each kind of sequence: how many are below 0.01, and how well they are told from test windows."""
    random = np.random.default_rng(0)
    data = species_data(classes, FinetuneData(window=window))
    typicality = Typicality.of(data)
    train, valid, test = (split.thinned(EXAMPLES) for split in (data.train, data.valid, data.test))
    regression = kmer_baseline(
        (train, train.labels), (valid, valid.labels), (test, test.labels), len(data.classes), stranded=False
    )

    def sure(windows: list[np.ndarray]) -> np.ndarray:
        table = kmer_table(windows, regression.k)
        return regression.fit.probabilities(merged_strands(table) if regression.both_strands else table).max(1)

    own = list(data.test.thinned(MOST))
    kinds = {"test windows": own, **{name: _windows(path, window, random) for name, path in foreign.items()}}
    kinds["letters at random"] = list(LETTERS[random.integers(0, 4, (MOST, window))])
    kinds["test windows, shuffled"] = [random.permutation(bases) for bases in own]
    kinds["repeats of 1 to 6 bases"] = [
        np.resize(LETTERS[random.integers(0, 4, random.integers(1, LONGEST_UNIT + 1))], window) for _ in range(MOST)
    ]
    found = {name: typicality.of_windows([tokens.encode(bases) for bases in kind]) for name, kind in kinds.items()}
    surety = {name: sure(kind) for name, kind in kinds.items()}
    return [
        {
            "window": window,
            "sequences": name,
            "n": len(values),
            "below 0.01": float((values < UNLIKE).mean()),
            "AUROC of typicality": _auroc(found["test windows"], values) if kinds[name] is not own else None,
            "AUROC of a k-mer model's confidence": (
                _auroc(surety["test windows"], surety[name]) if kinds[name] is not own else None
            ),
        }
        for name, values in found.items()
    ]


def _auroc(own: np.ndarray, other: np.ndarray) -> float:
    labels = np.concatenate([np.zeros(len(own)), np.ones(len(other))])
    return float(roc_auc_score(labels, -np.concatenate([own, other])))


def _windows(path: Path, window: int, random: np.random.Generator) -> list[np.ndarray]:
    """Windows of known bases from anywhere in a file; fewer of a small one."""
    found = [whole for whole in _whole(path, window) if np.isin(whole, LETTERS).all()]
    chosen = random.permutation(len(found))[:MOST]
    return [found[place] for place in chosen]


def _whole(path: Path, window: int) -> Iterator[np.ndarray]:
    held = np.zeros(0, np.uint8)
    for piece in stream_fasta(path, unique_ids=False):
        held = np.concatenate([held, piece.sequence])
        whole = len(held) // window
        yield from held[: whole * window].reshape(whole, window)
        held = held[whole * window :]
        if piece.is_last:
            held = np.zeros(0, np.uint8)


def _files(named: list[str]) -> dict[str, Path]:
    return {name: Path(path) for name, _, path in (one.partition("=") for one in named)}


if __name__ == "__main__":
    main()
