"""What a classifier is compared with: which baseline is the strongest, what gives classes away without a sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genomamba.classifier import baselines
from genomamba.classifier.baselines import Baselines, fit_baselines, paired_difference
from genomamba.classifier.examples import Examples, LabelledData, PackedSequences
from genomamba.classifier.metrics import majority
from genomamba.classifier.small_cnn import CnnResult

CLASSES = ("a", "b")


def labelled(kind: str, *, stranded: bool = True, seed: int = 0, n: int = 240) -> LabelledData:
    """Two classes that differ in one thing: a motif at a place, G and C, the length, or N."""
    random = np.random.default_rng(seed)
    labels, texts = random.integers(0, 2, n), []
    for label in labels:
        share = 0.8 if kind == "G and C" and label else 0.5
        p = [(1 - share) / 2, share / 2, share / 2, (1 - share) / 2]
        text = random.choice(np.frombuffer(b"ACGT", np.uint8), 40 + 20 * (kind == "length" and label), p=p)
        if kind == "motif" and label:
            text[15:21] = np.frombuffer(b"TATAAA", np.uint8)
        if kind == "unknown bases" and label:
            text[:8] = ord("N")
        texts.append(text)
    source = PackedSequences.pack(texts)
    cuts = np.split(np.arange(n), [n // 2, 3 * n // 4])
    train, valid, test = (Examples(source, rows, labels[rows].astype(np.int64)) for rows in cuts)
    window = int(source.lengths().max())
    return LabelledData(CLASSES, train, valid, test, window, stranded, {})


@pytest.fixture(scope="module")
def of_motif() -> tuple[Baselines, list[str]]:
    said: list[str] = []
    return fit_baselines(labelled("motif"), said.append), said


def test_aligned_sequences_are_asked_place_by_place(of_motif: tuple[Baselines, list[str]]) -> None:
    found, said = of_motif
    assert found.letters is not None
    assert found.cnn is not None
    assert found.letters.test.accuracy > 0.95
    assert found.regression is found.letters
    assert "one-hot logistic regression fitted" in said
    assert any(line.startswith("small CNN trained") for line in said)
    name, test, probabilities = found.strongest
    losses = {
        f"{found.kmer.k}-mer logistic regression": found.kmer, "one-hot logistic regression": found.letters,
        "small CNN": found.cnn,
    }  # fmt: skip
    assert name == min(losses, key=lambda one: losses[one].validation.nll)
    assert test is losses[name].test
    assert probabilities is losses[name].probabilities
    assert set(found.to_dict()) == {"kmer", "letters", "cnn", "shortcut", "shortcuts", "majority"}


def test_the_regression_of_a_classifier_is_that_under_which_validation_is_likelier(
    of_motif: tuple[Baselines, list[str]],
) -> None:
    found = of_motif[0]
    assert found.letters is not None
    worse = replace(found.letters, validation=replace(found.letters.validation, nll=found.kmer.validation.nll + 0.01))
    assert replace(found, letters=worse).regression is found.kmer
    same = replace(found.letters, validation=replace(found.letters.validation, nll=found.kmer.validation.nll))
    assert replace(found, letters=same).regression is found.kmer
    assert replace(found, letters=None).regression is found.kmer
    alone = replace(found, letters=None, cnn=None)
    assert alone.strongest[0].endswith("-mer logistic regression")
    assert set(alone.to_dict()) == {"kmer", "shortcut", "shortcuts", "majority"}


def test_where_strand_means_nothing_no_place_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fit_baselines(labelled("motif", stranded=False))
    assert (found.letters, found.cnn) == (None, None)
    monkeypatch.setattr(baselines, "_MOST_PLACES", 39)
    assert fit_baselines(labelled("motif")).letters is None


def test_what_looks_at_places_has_each_split_and_as_many_examples_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, seen = labelled("motif"), {}

    def kept(name: str, whole: Callable[..., object]) -> Callable[..., object]:
        def call(*given: Any) -> object:
            seen[name] = [labels for _, labels in given[:3]]
            return whole(*given)

        return call

    for name in ("letters_baseline", "cnn_baseline"):
        monkeypatch.setattr(baselines, name, kept(name, getattr(baselines, name)))
    monkeypatch.setattr(baselines, "_MOST_PLACES", data.window)
    monkeypatch.setattr(baselines, "_TABLE_BYTES", 16 * data.window * 50 + 1)  # one-hot letters of float32
    baselines._of_places(data, 2, None)
    expected = [data.train.thinned(50).labels, data.valid.thinned(50).labels, data.test.labels]
    assert [len(labels) for labels in expected] == [50, 50, 60]
    for splits in seen.values():
        assert all(np.array_equal(one, other) for one, other in zip(splits, expected, strict=True))
    assert set(seen) == {"letters_baseline", "cnn_baseline"}
    monkeypatch.setattr(baselines, "MAX_EXAMPLES", 30)
    baselines._of_places(data, 2, None)
    assert [len(labels) for labels in seen["cnn_baseline"]] == [30, 30, 60]


@pytest.mark.parametrize("kind", ["length", "unknown bases", "G and C"])
def test_each_shortcut_is_told_by_itself(kind: str) -> None:
    data = labelled(kind, stranded=False)
    found = fit_baselines(data)
    reached = {name: scores.accuracy for name, scores in found.shortcuts.items()}
    assert set(reached) == {"length", "unknown bases", "G and C"}
    assert reached[kind] > 0.85
    assert all(value < 0.7 for name, value in reached.items() if name != kind)
    assert (found.shortcut.accuracy > 0.85) == (kind != "G and C")
    assert found.majority == majority(data.train.labels, data.test.labels, 2)


def test_numbers_outside_the_sequence_are_counted() -> None:
    texts = [np.frombuffer(text, np.uint8) for text in (b"ACGT", b"GGGNNN", b"NN", b"CCA", b"C")]
    rows = np.arange(5)
    found = baselines._outside(Examples(PackedSequences.pack(texts), rows, rows % 2))
    assert found == pytest.approx(np.array([[4, 0, 0.5], [6, 0.5, 1], [2, 1, 0], [3, 0, 2 / 3], [1, 0, 1]]))


def test_a_paired_difference_is_mcnemars_exact_test() -> None:
    labels = np.array([0] * 20)
    ours, theirs = np.tile([0.9, 0.1], (20, 1)), np.tile([0.9, 0.1], (20, 1))
    assert paired_difference(labels, ours, theirs) == (0, 0, 1.0)
    theirs[:6] = [0.1, 0.9]
    ours[6] = [0.1, 0.9]
    only_we, only_they, p = paired_difference(labels, ours, theirs)
    assert (only_we, only_they) == (6, 1)
    assert p == pytest.approx(2 * (1 + 7) / 2**7)
    both_wrong = np.tile([0.1, 0.9], (20, 1))
    assert paired_difference(labels, both_wrong, both_wrong)[2] == 1.0


def test_a_cnn_is_kept_with_its_network(of_motif: tuple[Baselines, list[str]]) -> None:
    cnn = of_motif[0].cnn
    assert isinstance(cnn, CnnResult)
    assert cnn.network.places == 40
