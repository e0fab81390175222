"""The classifier's one promise beside learning: what stands beside a sequence in a batch never changes its answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba import tokens
from genomamba.classifier.network import ClassifierConfig, SequenceClassifier
from genomamba.prediction.predictor import Predictor, RecordAverage, length_batches
from mamba_data_prep.errors import UserError

LENGTHS = (1, 2, 5, 17, 33, 63, 64)
SHAPES = [
    {"pooling": "mean"},
    {"pooling": "last"},
    {"pooling": "attention"},
    {"pooling": "mean", "taps": 7, "stride": 3},
    {"pooling": "last", "taps": 4, "stride": 4, "positions": True},
    {"pooling": "attention", "taps": 3, "positions": True},
    {"pooling": "mean", "pattern": ("mamba", "attention")},
]


def _windows(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(7, 12, length).astype(np.uint8) for length in LENGTHS]


@pytest.mark.parametrize("bidirectional", ["none", "add", "concat"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s.values())))
def test_padding_changes_nothing(
    make_classifier: Callable[..., SequenceClassifier], shape: dict[str, object], bidirectional: str
) -> None:
    network = make_classifier(bidirectional=bidirectional, **shape)
    windows = _windows()
    together = Predictor(network, torch.device("cpu"), 10**6).logits(windows)
    alone = np.concatenate([Predictor(network, torch.device("cpu"), 1).logits([w]) for w in windows])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 1e-3, "the answers must differ for the comparison to mean anything"


def test_a_base_reaches_the_answer_from_either_end(make_classifier: Callable[..., SequenceClassifier]) -> None:
    predictor = Predictor(make_classifier(), torch.device("cpu"))
    window = _windows()[-1]
    for place in (0, len(window) - 1):
        other = window.copy()
        other[place] = 7 + (window[place] - 6) % 4
        assert np.abs(predictor.logits([window]) - predictor.logits([other])).max() > 1e-6


def test_both_strands_give_the_same_answer_for_either(make_classifier: Callable[..., SequenceClassifier]) -> None:
    predictor = Predictor(make_classifier(), torch.device("cpu"), both_strands=True)
    windows = _windows()
    turned = [tokens.reverse_complement(w) for w in windows]
    np.testing.assert_allclose(predictor.probabilities(windows), predictor.probabilities(turned), atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=40), room=st.integers(1, 2000))
def test_batches_hold_each_window_once_and_fit(lengths: list[int], room: int) -> None:
    batches = list(length_batches(lengths, room))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= room for b in batches)


def test_windows_of_a_record_weigh_by_their_known_bases() -> None:
    average = RecordAverage(2, "mean")
    average.add(np.array([1.0, 0.0]), 30)
    average.add(np.array([0.0, 1.0]), 10)
    assert average.result() == pytest.approx([0.75, 0.25])
    logs = RecordAverage(2, "log-mean")
    logs.add(np.array([0.9, 0.1]), 5)
    logs.add(np.array([0.1, 0.9]), 5)
    assert logs.result() == pytest.approx([0.5, 0.5])
    assert np.isnan(RecordAverage(2, "mean").result()).all()


def test_a_window_that_rules_a_class_out_leaves_the_mean_of_logarithms_finite() -> None:
    logs = RecordAverage(2, "log-mean")
    logs.add(np.array([1.0, 0.0]), 5)
    logs.add(np.array([0.4, 0.6]), 5)
    assert logs.result() == pytest.approx([1, 0], abs=1e-9)


def test_windows_without_bases_make_batches_too() -> None:
    assert [len(batch) for batch in length_batches([0, 0, 0], 2)] == [2, 1]


@pytest.mark.parametrize(("windows", "remedy"), [(2, "--batch-bases 10"), (1, "a smaller --window")])
def test_a_batch_beyond_the_device_s_memory_is_refused_with_half_of_it(
    windows: int, remedy: str, make_classifier: Callable[..., SequenceClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise torch.OutOfMemoryError

    network = make_classifier()
    monkeypatch.setattr(network, "forward", full)
    with pytest.raises(UserError, match=f"give classify .*{remedy}"):
        Predictor(network, torch.device("cpu")).logits([np.full(10, tokens.FIRST_BASE, np.uint8)] * windows)


def test_a_bundle_gives_the_same_answers_as_the_model_it_was_made_from(
    make_classifier: Callable[..., SequenceClassifier], bundle: Path
) -> None:
    ours, read = make_classifier(taps=5, stride=2), SequenceClassifier.from_bundle(bundle)
    predict = [Predictor(network, torch.device("cpu")).logits(_windows()) for network in (ours, read)]
    np.testing.assert_array_equal(*predict)
    assert read.config.classes == ("human", "E. coli", "x,y")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "genomamba-lm"}, "not a classifier"),
        ({"format": 2}, "another version"),
        ({"classes": ["one"]}, "classes"),
        ({"classes": [1, 2]}, "classes"),
        ({"window": 0}, "window"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"model": {"d_model": -1}}, "d_model"),
        ({"head": {"pooling": "max"}}, "pooling"),
    ],
)
def test_a_damaged_configuration_is_named(
    make_classifier: Callable[..., SequenceClassifier], change: dict[str, object], problem: str
) -> None:
    values = {**make_classifier().config.to_dict(), **change}
    with pytest.raises(UserError, match=problem):
        ClassifierConfig.from_dict(values, "model")


def test_pretrained_weights_are_taken_over_and_misfits_refused(
    make_classifier: Callable[..., SequenceClassifier],
) -> None:
    from genomamba.language_model.model import GenomeLM

    network = make_classifier(bidirectional="none")
    language = GenomeLM(network.config.model)
    new = network.load_pretrained(language.state_dict(), "lm")
    assert new == ["head.weight", "head.bias"]
    assert torch.equal(network.embedding.weight, language.embedding.weight)
    with pytest.raises(UserError, match="do not fit"):
        make_classifier(bidirectional="add").load_pretrained(language.state_dict(), "lm")
