"""Windows go through the model in batches of like length, and come back as rows that say why they abstain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.prediction.classified import classify_windows
from genomamba.prediction.predictor import Predictor, RecordAverage, length_batches
from genomamba.prediction.record_windows import record_windows
from genomamba.prediction.stretches import record_stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import FastaPiece

Make = Callable[..., SequenceClassifier]
CPU = torch.device("cpu")


def test_windows_are_averaged_by_their_known_bases() -> None:
    mean, logs = RecordAverage(2, "mean"), RecordAverage(2, "log-mean")
    for average in (mean, logs):
        assert np.isnan(average.result()).all()
        average.add(np.array([0.9, 0.1]), 10)
        average.add(np.array([0.5, 0.5]), 30)
    assert mean.result() == pytest.approx([0.6, 0.4])
    votes = np.array([0.9 ** (1 / 4), 0.1 ** (1 / 4)])  # the other window has no preference
    assert logs.result() == pytest.approx(votes / votes.sum())
    logs.add(np.array([0.0, 1.0]), 40)
    assert logs.result() == pytest.approx([0, 1], abs=1e-12)


def test_batches_hold_like_lengths_longest_first_within_their_size() -> None:
    assert [batch.tolist() for batch in length_batches([1, 5, 3, 5, 2], 10)] == [[1, 3], [2, 4, 0]]
    assert [batch.tolist() for batch in length_batches([1] * 100, 4)][:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [batch.tolist() for batch in length_batches([50, 60], 10)] == [[1], [0]]
    assert [batch.tolist() for batch in length_batches([0, 0], 10)] == [[0, 1]]
    assert list(length_batches([], 10)) == []


def test_progress_is_told_after_every_batch(make_classifier: Make) -> None:
    told = []
    predictor = Predictor(make_classifier(), CPU, batch_bases=64, on_batch=lambda: told.append(1))
    predictor.probabilities([tokens.encode(b"ACGT" * 16)] * 3)
    assert len(told) == 3


@pytest.mark.parametrize(("windows", "fix"), [(2, "--batch-bases 64"), (1, "a smaller --window")])
def test_too_little_memory_is_told_with_what_fits(
    windows: int, fix: str, make_classifier: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_classifier()

    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(network, "forward", forward)
    with pytest.raises(UserError, match="memory") as caught:
        Predictor(network, CPU).logits([tokens.encode(b"ACGT" * 16)] * windows)
    assert fix in str(caught.value.fix)


@pytest.mark.parametrize("per_window", [True, False])
@pytest.mark.parametrize(("both_strands", "strand"), [(True, "."), (False, "+")])
def test_rows_say_how_they_were_read_and_why_they_abstain(
    per_window: bool, both_strands: bool, strand: str, make_classifier: Make
) -> None:
    records = {"whole": "ACGT" * 8, "short": "ACGT", "masked": "ACGT" + "N" * 28, "unknown": "N" * 32, "empty": ""}
    pieces = [
        FastaPiece(name, "", number, 0, np.frombuffer(bases.encode(), np.uint8), True, 1)
        for number, (name, bases) in enumerate(records.items())
    ]
    predictor = Predictor(make_classifier(), CPU, both_strands=both_strands)
    (rows,) = classify_windows(record_windows(record_stretches(pieces), 64, 64), predictor, per_window=per_window)
    assert rows.strand == [strand] * len(rows)
    assert list(rows.reason) == ["", "too short", "too few known bases", "no known base", "no bases"]
    assert rows.n_frac.tolist() == pytest.approx([0, 0, 28 / 32, 1, 1])
