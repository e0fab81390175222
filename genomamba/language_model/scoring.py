"""Scoring a language model on a genome: on the split it was trained with, or on all of another genome."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genomamba.config import DataConfig, TableShape
from genomamba.language_model.data import GenomeWindows, frozen, make_split, open_genome
from genomamba.language_model.markov_of_run import MarkovResult
from genomamba.language_model.model import GenomeLM, bits
from genomamba.language_model.objectives import asked_nats
from mamba_configs.settings import validated
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.reading import Overlap, RegionsRead
from mamba_data_prep.genomes.windows import WindowTable, tile
from mamba_training.bundle import load_bundle
from mamba_training.devices import pick_device

_SPLITS = ("train", "valid", "test", "all")


@dataclass(frozen=True)
class LanguageScore:
    """How well bases are predicted.

    Attributes:
        nats: mean cross-entropy per base.
        n_bases: bases predicted.
        window_nats, window_bases: sum of cross-entropies and bases predicted of each window, (windows,); empty where
            windows were not told apart.
    """

    nats: float
    n_bases: int
    window_nats: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros(0))
    window_bases: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros(0, np.int64))

    @property
    def bits(self) -> float:
        """Bits per base; two is what guessing costs."""
        return bits(self.nats)

    @property
    def perplexity(self) -> float:
        """The number of equally likely bases that would be as hard to guess."""
        return math.exp(self.nats)

    def to_dict(self) -> dict[str, float]:
        """Gives plain values for JSON."""
        return {"nats": self.nats, "bits": self.bits, "perplexity": self.perplexity, "n_bases": self.n_bases}


def evaluate_windows(
    model: GenomeLM, windows: GenomeWindows, tokens_at_a_time: int = 2**14, *, counts_alone: bool = False
) -> LanguageScore:
    """Scores every window once, on the device where the model is; with `counts_alone` its table of contexts only."""
    forward = model.counts_alone if counts_alone else model
    device = next(model.parameters()).device
    nats, n_bases = [np.zeros(0)], [np.zeros(0, np.int64)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for block in windows.blocks(tokens_at_a_time):
            ids = torch.from_numpy(block).to(device)
            question = model.objective.scoring(ids)
            found, targets = asked_nats(forward(question.inputs), question.targets)
            nats.append(found.double().cpu().numpy())
            n_bases.append(targets.cpu().numpy())
    model.train(was_training)
    each, counted = np.concatenate(nats), np.concatenate(n_bases)
    return LanguageScore(float(each.sum() / max(1, counted.sum())), int(counted.sum()), each, counted)


def judged(ours: LanguageScore, **judges: MarkovResult) -> dict[str, Any]:
    """What Markov models reach on the test windows, and how many bits the language model saves over each.

    Args:
        ours: the language model's score of the test windows.
        judges: Markov models scored on the same windows: `seen` of the bases the model has read, `everything` of all
            training bases.

    Returns:
        `markov` and `markov_all`, plain values for JSON.
    """
    names = {"seen": "markov", "everything": "markov_all"}
    found = {}
    for name, judge in judges.items():
        assert judge.test_nats is not None
        saved, error = bits_saved(ours.window_nats, judge.test_nats, ours.window_bases)
        found[names[name]] = {**judge.to_dict(), "saved_bits": saved, "saved_bits_error": error}
    return found


def counts_alone(shape: TableShape, ours: LanguageScore, valid: LanguageScore, test: LanguageScore) -> dict[str, Any]:
    """What the table of contexts costs without the network, and what the network saves over it on the test windows.

    Args:
        shape: of the table.
        ours: the whole model's score of the test windows.
        valid, test: the table's own scores.
    """
    saved, error = bits_saved(ours.window_nats, test.window_nats, ours.window_bases)
    return {
        **shape.model_dump(), "valid_bits": valid.bits, "test_bits": test.bits, "saved_bits": saved,
        "saved_bits_error": error,
    }  # fmt: skip


def bits_saved(ours: np.ndarray, theirs: np.ndarray, n_bases: np.ndarray) -> tuple[float, float | None]:
    """Bits a base that one model saves over another on the same windows, and the standard error over windows.

    One window tells nothing of the error.

    Args:
        ours, theirs: nats of each window, (windows,).
        n_bases: bases predicted in each.
    """
    saved = (theirs - ours) / math.log(2)
    total = max(1, int(n_bases.sum()))
    mean = float(saved.sum() / total)
    n = len(saved)
    if n < 2:
        return mean, None
    return mean, float(np.sqrt(((saved - mean * n_bases) ** 2).sum() * n / (n - 1)) / total)


def evaluate_lm(*, model: Path, fasta: Path, split: str, out: Path | None, device: str) -> dict[str, Any]:
    """Bits per base and perplexity of next-base prediction.

    On the genome it was trained on, the windows of `split` are scored, as the training left them; on any other genome
    all windows are. At most `data.final_bases` bases, spread evenly, are read.

    Raises:
        UserError: it is no language model, the split is unknown, or the regions of the training are not known.
    """
    if split not in _SPLITS:
        raise UserError("the split is unknown", found=split, accepted=", ".join(_SPLITS))
    network = GenomeLM.from_bundle(model).to(pick_device(device))
    training = load_bundle(model).config.get("training", {})
    data = validated(DataConfig, training.get("settings", {}).get("data", {}), path=model)
    genome = open_genome(fasta)
    same = training.get("genome", {}).get("xxh3_128") == genome.fingerprint.xxh3_128
    used = split if same else "all"
    windows: WindowTable
    if used == "all":
        windows = tile(genome, data.window, max_n_fraction=data.max_n_fraction)
    else:
        made = make_split(genome, data)
        if made.description.get("digests") not in (None, training.get("split", {}).get("digests")):
            raise UserError(
                "the training's split cannot be made again from the genome alone", path=model,
                fix="it was made with a BED file; score everything with --split all",
            )  # fmt: skip
        windows = made.tables()[used]
    if not len(windows):
        raise UserError("no window is left to score", path=fasta, found=f"windows of {data.window:,} bases")
    chosen = frozen(windows, data.final_bases)
    scored = evaluate_windows(network, GenomeWindows(genome, chosen))
    read = _read_of(training, genome, chosen)
    result = {
        "model": str(model), "fasta": str(fasta), "split": used, "seen_in_training": same,
        "read_in_training": None if read is None else read.to_dict(), **scored.to_dict(),
    }  # fmt: skip
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(out / "evaluation.json") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    where = f"{used} windows of the genome it was trained on" if same else "all windows of a genome new to it"
    text = f"{scored.bits:.4f} bits per base, perplexity {scored.perplexity:.4f}, {scored.n_bases:,} bases ({where})"
    if read is not None and read.read_windows:
        text += f"\ncaution: in training the model has read {read} of these"
    return {**result, "text": text}


def _read_of(training: Mapping[str, Any], genome: Genome, windows: WindowTable) -> Overlap | None:
    """How much of some windows the model has read; None where its bundle doesn't say, or knows another genome."""
    found = [RegionsRead.from_dict(one) for one in training.get("read", {}).get("genomes", [])]
    known = next((one for one in found if one.xxh3_128 == genome.fingerprint.xxh3_128), None)
    return None if known is None else known.overlap_of(genome, windows)
