"""genomamba from Python: read a model, classify sequences, and score them under a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from genomamba import tokens
from genomamba.classifier.network import BUNDLE_KIND as CLASSIFIER
from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.classify import classify_windows
from genomamba.commands.score import make_scorer
from genomamba.language_model.model import BUNDLE_KIND as LANGUAGE_MODEL
from genomamba.language_model.model import GenomeLM
from genomamba.models import model_path
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Predictor
from genomamba.prediction.record_windows import record_windows
from genomamba.prediction.rows import no_predictions
from genomamba.prediction.score_rows import base_rows, no_scores, stretch_rows
from genomamba.prediction.scored import Strands, score_stretches
from genomamba.prediction.stretches import record_stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import FastaPiece
from mamba_data_prep.genomes.rna import count_uracils, tell_uracils
from mamba_training.bundle import load_bundle


def load(path: str | Path) -> GenomeLM | SequenceClassifier:
    """Reads a model from a run folder or a bundle, in evaluation mode on the CPU; runs no code from it.

    Args:
        path: of the run or the bundle, or the name of a model that ships (`genomamba info models` lists them).

    Returns:
        A language model or a classifier, as the bundle holds.

    Raises:
        UserError: there is no bundle, it is damaged, or it holds another kind of model.
    """
    path = model_path(path)
    kind = load_bundle(path).config.get("kind")
    if kind == LANGUAGE_MODEL:
        return GenomeLM.from_bundle(path)
    if kind == CLASSIFIER:
        return SequenceClassifier.from_bundle(path)
    raise UserError("this is no model of genomamba", path=path, found=kind, accepted=f"{LANGUAGE_MODEL}, {CLASSIFIER}")


def classify(
    model: SequenceClassifier, sequences: Sequence[str] | Mapping[str, str], *, both_strands: bool = False
) -> pd.DataFrame:
    """The class of each sequence, with the numbers that `genomamba classify` writes.

    Args:
        model: as `load` gives it; its device is where the work is done.
        sequences: letters of DNA of any length, upper or lower case; those longer than the model's window are read
            window by window. The keys of a mapping name them; otherwise they are called by their numbers from 0.
        both_strands: average the probabilities of both strands.

    Returns:
        The table that the command writes, a row a sequence: `seq_id, start, end, strand, length, n_frac, predicted,
        confidence`, `prob_` and the name of each class, and `reason` where the model abstains.

    Raises:
        UserError: a letter is no nucleotide code.
    """
    window, device = model.config.window, next(model.parameters()).device
    predictor = Predictor(model.eval(), device, DEFAULT_BATCH_BASES, both_strands)
    windows = record_windows(record_stretches(_records(sequences)), window, window)
    parts = list(classify_windows(windows, predictor)) or [no_predictions(model.config.classes)]
    return pd.concat([pd.DataFrame(rows.columns()) for rows in parts], ignore_index=True)


def score(
    model: GenomeLM,
    sequences: Sequence[str] | Mapping[str, str],
    *,
    per: Literal["record", "base"] = "record",
    strands: Strands = "both",
    every: int | None = None,
    window: int = 4096,
) -> pd.DataFrame:
    """The log-likelihood of sequences under a language model, with the numbers that `genomamba score` writes.

    Args:
        model: as `load` gives it; its device is where the work is done.
        sequences: see `classify`; each is read whole, of any length.
        per: a row a sequence, or a row a base.
        strands: at each base the mean of both directions' log-probabilities, or one of them.
        every: of a masked model, how far the bases are apart that are hidden together.
        window: bases that a masked model reads at a time.

    Returns:
        A row a sequence: `seq_id, start, end, strand, length, n_frac, scored` (bases), `log2_likelihood`, `bits` and
        `bits_per_base`; or a row a base: `seq_id, start, end, strand, base, log2_likelihood, bits`. NaN where nothing
        was scored.

    Raises:
        UserError: a letter is no nucleotide code.
    """
    scorer = make_scorer(model.eval(), next(model.parameters()).device, window, every)
    pieces = score_stretches(record_stretches(_records(sequences)), scorer, strands)
    rows = base_rows(pieces, strands) if per == "base" else stretch_rows(pieces, strands, regions=False)
    parts = list(rows) or [no_scores(per, regions=False)]
    return pd.concat([pd.DataFrame(part.columns()) for part in parts], ignore_index=True)


def _records(sequences: Sequence[str] | Mapping[str, str]) -> Iterator[FastaPiece]:
    """The sequences as a reader of FASTA gives them."""
    if isinstance(sequences, str):
        raise UserError("one sequence was given where several are expected", fix="put it into a list")
    named = sequences.items() if isinstance(sequences, Mapping) else enumerate(sequences)
    uracils = 0
    for number, (name, letters) in enumerate(named):
        bases = np.frombuffer(letters.upper().encode("ascii", errors="replace"), np.uint8)
        wrong = np.flatnonzero(tokens.encode(bases) == tokens.UNK)
        if len(wrong):
            raise UserError(
                "this letter is no nucleotide code", record=str(name), found=letters[wrong[0]],
                accepted="A C G T U N and the IUPAC codes R Y S W K M B D H V, either case",
            )  # fmt: skip
        uracils += count_uracils(bases.tobytes())
        yield FastaPiece(str(name), "", number, 0, bases, True, 0)
    tell_uracils("the sequences given", uracils)
