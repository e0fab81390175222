"""genomamba from Python: read a model, classify sequences, and score them under a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from genomamba import tokens
from genomamba.classifier.network import BUNDLE_KIND as CLASSIFIER
from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.classify import classify_windows
from genomamba.language_model.model import BUNDLE_KIND as LANGUAGE_MODEL
from genomamba.language_model.model import GenomeLM, window_nats
from genomamba.models import model_path
from genomamba.prediction.predictor import DEFAULT_BATCH_BASES, Predictor
from genomamba.prediction.record_windows import record_windows
from genomamba.prediction.rows import Predictions
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import FastaPiece
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
    windows = record_windows(_records(sequences), window, window)
    nowhere = np.zeros(0, np.int64)
    nothing = Predictions(
        model.config.classes, [], nowhere, nowhere, ".", np.zeros(0), [], np.zeros((0, len(model.config.classes))), []
    )  # fmt: skip
    parts = list(classify_windows(windows, predictor)) or [nothing]
    return pd.concat([pd.DataFrame(rows.columns()) for rows in parts], ignore_index=True)


@torch.inference_mode()
def score(model: GenomeLM, sequences: Sequence[str] | Mapping[str, str]) -> pd.DataFrame:
    """How well a language model predicts each base of each sequence from those before it.

    Args:
        model: as `load` gives it; its device is where the work is done.
        sequences: see `classify`; each is read whole.

    Returns:
        A row a sequence: `seq_id, length, bases` (that were predicted: A, C, G and T after the first base),
        `log_likelihood` (of these bases, nats) and `bits` (mean cost a base; NaN where none was predicted).

    Raises:
        UserError: a letter is no nucleotide code.
    """
    if not model.objective.looks_ahead:
        raise UserError("a masked model does not foretell the next base", accepted="a model trained with next_base")
    device = next(model.parameters()).device
    rows = []
    for piece in _records(sequences):
        ids = torch.from_numpy(tokens.encode(piece.sequence))[None].to(device)
        nats, n_bases = (0.0, 0)
        if ids.shape[1] > 1:
            found, counted = window_nats(model.eval()(ids), ids)
            nats, n_bases = float(found), int(counted)
        bits = nats / n_bases / math.log(2) if n_bases else math.nan
        rows.append((piece.record, len(piece.sequence), n_bases, -nats, bits))
    return pd.DataFrame(rows, columns=pd.Index(["seq_id", "length", "bases", "log_likelihood", "bits"]))


def _records(sequences: Sequence[str] | Mapping[str, str]) -> Iterator[FastaPiece]:
    """The sequences as a reader of FASTA gives them."""
    if isinstance(sequences, str):
        raise UserError("one sequence was given where several are expected", fix="put it into a list")
    named = sequences.items() if isinstance(sequences, Mapping) else enumerate(sequences)
    for number, (name, letters) in enumerate(named):
        bases = np.frombuffer(letters.upper().encode("ascii", errors="replace"), np.uint8)
        wrong = np.flatnonzero(tokens.encode(bases) == tokens.UNK)
        if len(wrong):
            raise UserError(
                "this letter is no nucleotide code", record=str(name), found=letters[wrong[0]],
                accepted="A C G T U N and the IUPAC codes R Y S W K M B D H V, either case",
            )  # fmt: skip
        yield FastaPiece(str(name), "", number, 0, bases, True, 0)
