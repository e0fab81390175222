"""How good a classifier is, from its probabilities: accuracy, F1, MCC, AUROC, confusion and calibration.

Shapes: `M` examples, `C` classes. Probabilities are rows that sum to one; labels are class indexes.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np
import torch

N_BINS = 15
_TINY = 1e-12


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of a confidence from `lower` up to below `upper`: what they claimed and how often they were right.

    A confidence of exactly 1 has a bin of its own, as in torchmetrics, whose expected calibration error is ours.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Metrics:
    """Scores of one classifier on one split.

    Attributes:
        n: number of examples scored; abstentions are not offered here, so every example counts.
        auroc: macro one-vs-rest area under the ROC curve over the classes present; None when only one class is present.
        nll: mean negative log-likelihood, nats.
        brier: mean over examples of the sum over classes of squared error, 0 (best) to 2.
        mcc: Matthews' correlation coefficient; 0 where only one class is present, or only one is predicted.
        ece: expected calibration error of the predicted class, `N_BINS` bins of equal width (Guo et al. 2017, eq. 3).
        confusion: rows are the true class, columns the predicted one.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    mcc: float
    auroc: float | None
    nll: float
    brier: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]
    per_class_f1: tuple[float, ...]
    reliability: tuple[ReliabilityBin, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain lists and numbers, ready for JSON."""
        return asdict(self)

    def headline(self) -> dict[str, float | None]:
        """The scores that are single numbers, by name."""
        names = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc", "nll", "brier", "ece")
        return {name: getattr(self, name) for name in names}


def measure(labels: np.ndarray, probabilities: np.ndarray) -> Metrics:
    """Scores probabilities (M, C) against labels (M,).

    Raises:
        ValueError: no examples, shapes that do not match, or labels outside the classes.
    """
    from torchmetrics.functional import classification as scores  # seconds, which nobody waits for who only predicts

    labels, probabilities = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"labels (M,) and probabilities (M, C) expected, M > 0; got {labels.shape}, {probabilities.shape}"
        )
    n_classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels must lie in 0..{n_classes - 1}, got {labels.min()}..{labels.max()}")
    p, truth = torch.from_numpy(probabilities), torch.from_numpy(labels)
    present, predicted = np.unique(labels), np.unique(probabilities.argmax(1))
    told_apart = min(len(present), len(predicted)) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are absent, which don't count here
        f1 = scores.multiclass_f1_score(p, truth, n_classes, average="none")
        recall = scores.multiclass_accuracy(p, truth, n_classes, average="none")[present]
        areas = scores.multiclass_auroc(p, truth, n_classes, average="none")[present] if len(present) > 1 else None
    return Metrics(
        n=len(labels),
        accuracy=float(scores.multiclass_accuracy(p, truth, n_classes, average="micro")),
        balanced_accuracy=float(recall.mean()),
        macro_f1=float(f1.mean()),
        # torchmetrics does not give 0 where one of two classes is always predicted
        mcc=float(scores.multiclass_matthews_corrcoef(p, truth, n_classes)) if told_apart else 0.0,
        auroc=None if areas is None else float(areas.mean()),
        nll=negative_log_likelihood(labels, probabilities),
        brier=float(((probabilities - np.eye(n_classes)[labels]) ** 2).sum(1).mean()),
        ece=float(scores.multiclass_calibration_error(p, truth, n_classes, N_BINS, "l1")),
        confusion=tuple(tuple(row) for row in scores.multiclass_confusion_matrix(p, truth, n_classes).tolist()),
        per_class_f1=tuple(f1.tolist()),
        reliability=reliability(labels, probabilities),
    )


def reliability(labels: np.ndarray, probabilities: np.ndarray, n_bins: int = N_BINS) -> tuple[ReliabilityBin, ...]:
    """Confidence against accuracy of the predicted class in bins of equal width; empty bins are left out."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, n_bins + 1)
    index = np.searchsorted(edges, confidence, side="right") - 1
    bins = []
    for b in range(n_bins + 1):
        chosen = index == b
        if chosen.any():
            count, claimed, hit = int(chosen.sum()), float(confidence[chosen].mean()), float(right[chosen].mean())
            bins.append(ReliabilityBin(float(edges[b]), float(edges[min(b + 1, n_bins)]), count, claimed, hit))
    return tuple(bins)


def by_length(labels: np.ndarray, probabilities: np.ndarray, lengths: np.ndarray) -> list[dict[str, float | int]]:
    """Scores of each quarter of the examples by their length; nothing where most are equally long.

    Args:
        labels: (M,).
        probabilities: (M, C).
        lengths: (M,) bases.

    Returns:
        Of each quarter the lengths it goes `from` and `to`, the number `n`, `accuracy` and `nll` in nats.
    """
    edges = np.unique(np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1], method="lower"))
    if len(edges) < 4:
        return []
    place = np.minimum(np.searchsorted(edges, lengths, side="right") - 1, len(edges) - 2)
    rows = []
    for part in range(len(edges) - 1):
        of = place == part
        right = probabilities[of].argmax(1) == labels[of]
        nll = negative_log_likelihood(labels[of], probabilities[of])
        shortest, longest = int(lengths[of].min()), int(lengths[of].max())
        rows.append({"from": shortest, "to": longest, "n": int(of.sum()), "accuracy": float(right.mean()), "nll": nll})
    return rows


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean nats lost on the true class."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _TINY)).mean())


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Row-wise softmax of logits (M, C) divided by a temperature, in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def fit_temperature(labels: np.ndarray, logits: np.ndarray, lowest: float = 0.05) -> float:
    """The one number that, dividing the logits, makes validation likelihood highest (Guo et al. 2017, section 4.2).

    Bounded to `lowest`..20 so that a perfectly separated validation set does not drive it to zero.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(labels, softmax(logits, float(np.exp(log_t)))),
        bounds=(np.log(lowest), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def majority(train_labels: np.ndarray, labels: np.ndarray, n_classes: int) -> Metrics:
    """Scores of always answering with the training split's class frequencies."""
    frequency = np.bincount(train_labels, minlength=n_classes) / len(train_labels)
    return measure(labels, np.tile(frequency, (len(labels), 1)))


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
