"""Scores against scikit-learn's definitions, and temperature scaling on logits of known scale."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from genomamba.classifier.metrics import (
    N_BINS,
    by_length,
    fit_temperature,
    majority,
    measure,
    negative_log_likelihood,
    softmax,
    spread,
)


def _case(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n)])
    return labels, softmax(rng.normal(size=(len(labels), n_classes)) + 1.5 * np.eye(n_classes)[labels])


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 60), n_classes=st.integers(2, 5), seed=st.integers(0, 999))
def test_scores_are_the_ones_that_reviewers_know(n: int, n_classes: int, seed: int) -> None:
    labels, p = _case(n, n_classes, seed)
    found, predicted = measure(labels, p), p.argmax(1)
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))
    assert found.mcc == pytest.approx(sk.matthews_corrcoef(labels, predicted))
    auroc = sk.roc_auc_score(labels, p if n_classes > 2 else p[:, 1], multi_class="ovr")
    assert found.auroc == pytest.approx(auroc)
    assert found.nll == pytest.approx(sk.log_loss(labels, p, labels=range(n_classes)))
    assert found.brier == pytest.approx(((p - np.eye(n_classes)[labels]) ** 2).sum(1).mean())
    assert found.ece == pytest.approx(_ece(labels, p), abs=1e-6)
    assert found.per_class_f1 == pytest.approx(sk.f1_score(labels, predicted, average=None, zero_division=0))
    assert np.array_equal(found.confusion, sk.confusion_matrix(labels, predicted, labels=range(n_classes)))


def _ece(labels: np.ndarray, p: np.ndarray) -> float:
    """Guo and others 2017, equation 3, example by example."""
    error = 0.0
    for number in range(N_BINS):
        inside = [i for i in range(len(p)) if number <= p[i].max() * N_BINS < number + 1]
        if inside:
            right = np.mean([p[i].argmax() == labels[i] for i in inside])
            error += len(inside) / len(p) * abs(right - np.mean([p[i].max() for i in inside]))
    return float(error)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 40), n_classes=st.integers(3, 5), absent=st.integers(1, 2), seed=st.integers(0, 999))
def test_classes_that_are_absent_do_not_count(n: int, n_classes: int, absent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    present = n_classes - absent
    labels = np.concatenate([np.arange(present), rng.integers(0, present, n)])
    p = softmax(rng.normal(size=(len(labels), n_classes)))
    found, predicted = measure(labels, p), p.argmax(1)
    recall = [(predicted[labels == one] == one).mean() for one in range(present)]
    assert found.balanced_accuracy == pytest.approx(np.mean(recall))
    if present > 1:
        areas = [sk.roc_auc_score(labels == one, p[:, one]) for one in range(present)]
        assert found.auroc == pytest.approx(np.mean(areas))
        assert found.mcc == pytest.approx(sk.matthews_corrcoef(labels, predicted))
    else:
        assert found.auroc is None
        assert found.mcc == 0
    f1 = sk.f1_score(labels, predicted, labels=range(n_classes), average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(f1)


def test_the_bins_that_are_drawn_are_those_of_the_calibration_error() -> None:
    rng = np.random.default_rng(5)
    p = np.round(softmax(2 * rng.normal(size=(500, 3))), 1)
    p = np.where(p.sum(1, keepdims=True) == 1, p, [[1.0, 0.0, 0.0]])  # many confidences on the bins' very edges
    found = measure(rng.integers(0, 3, 500), p)
    error = sum(b.count * abs(b.accuracy - b.confidence) for b in found.reliability) / found.n
    assert found.ece == pytest.approx(error, abs=1e-6)
    assert found.reliability[-1].lower == found.reliability[-1].upper == 1
    for one in found.reliability[:-1]:
        assert one.upper - one.lower == pytest.approx(1 / N_BINS)
        assert one.lower - 1e-9 <= one.confidence <= one.upper + 1e-9
    assert N_BINS == 15


def test_perfect_and_useless_predictions_have_the_extreme_scores() -> None:
    labels = np.array([0, 1, 0, 1])
    perfect = measure(labels, np.eye(2)[labels])
    assert (perfect.accuracy, perfect.mcc, perfect.auroc, perfect.brier, perfect.ece) == (1, 1, 1, 0, 0)
    useless = majority(np.array([0, 0, 0, 1]), labels, 2)
    assert (useless.n, useless.accuracy, useless.mcc, useless.auroc) == (4, 0.5, 0, 0.5)
    assert useless.nll == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("always", [0, 1])
def test_always_the_same_answer_has_no_correlation(always: int, n_classes: int) -> None:
    labels = np.array([0, 1, 1, 1, 0, 1, 1])
    assert measure(labels, np.eye(n_classes)[np.full(7, always)]).mcc == 0


def test_one_class_alone_has_no_auroc_but_scores() -> None:
    found = measure(np.array([1, 1]), np.array([[0.2, 0.8], [0.6, 0.4]]))
    assert found.auroc is None
    assert found.balanced_accuracy == 0.5


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_known_scale(scale: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 3)) * 2
    labels = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    found = fit_temperature(labels, logits * scale)
    assert found == pytest.approx(scale, rel=0.15)
    assert negative_log_likelihood(labels, softmax(logits * scale, found)) <= negative_log_likelihood(
        labels, softmax(logits * scale)
    )


def test_the_temperature_is_bounded() -> None:
    logits = np.eye(2)[[0, 1, 0, 1]]
    assert fit_temperature(np.array([0, 1, 0, 1]), logits) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(np.array([0, 1, 0, 1]), logits, lowest=0.5) == pytest.approx(0.5, rel=0.01)
    assert fit_temperature(np.array([1, 0, 1, 0]), logits) == pytest.approx(20, rel=0.01)


def test_scores_as_plain_values() -> None:
    labels, p = _case(20, 3, 0)
    found = measure(labels, p)
    told = found.to_dict()
    assert json.loads(json.dumps(told)).keys() == {field.name for field in fields(found)}
    headline = found.headline()
    assert list(headline) == ["accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc", "nll", "brier", "ece"]
    assert headline == {name: told[name] for name in headline}


def test_shapes_and_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="got"):
        measure(np.array([0]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"got \(2,\), \(2,\)"):
        measure(np.array([0, 1]), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        measure(np.array([2]), np.array([[0.5, 0.5]]))


def test_spread_of_one_value_is_zero() -> None:
    assert spread([0.5]) == (0.5, 0.0)
    assert spread([1.0, 3.0]) == pytest.approx((2.0, 2**0.5))


def test_quarters_by_length_hold_every_example_once() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 1000, 400)
    labels = rng.integers(0, 2, 400)
    right = lengths > 500
    p = np.where(right, 0.9, 0.2)  # of the true class
    probabilities = np.where(labels[:, None] == np.arange(2), p[:, None], 1 - p[:, None])
    rows = by_length(labels, probabilities, lengths)
    assert [row["n"] for row in rows] == [np.sum((lengths >= row["from"]) & (lengths <= row["to"])) for row in rows]
    assert sum(row["n"] for row in rows) == 400
    assert rows[0]["accuracy"] == 0.0
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["nll"] == pytest.approx(-np.log(0.9))
    assert by_length(labels, probabilities, np.full(400, 300)) == []
    assert by_length(labels, probabilities, np.resize([200, 300], 400)) == []
    three = by_length(labels, probabilities, np.repeat([100, 200, 300, 400], [150, 50, 100, 100]))
    assert [(row["from"], row["to"], row["n"]) for row in three] == [(100, 100, 150), (200, 200, 50), (300, 400, 200)]


def test_large_logits_do_not_overflow() -> None:
    assert np.array_equal(softmax(np.array([[2000.0, 0.0], [0.0, -2000.0]])), [[1, 0], [1, 0]])
