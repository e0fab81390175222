"""How much of a classifier's logits its linear part and its network give, as validation examples say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from genomamba.classifier.metrics import fit_temperature, softmax

_LEAST = 1e-12
_LOWEST_TEMPERATURE = 0.01
_MOST = 100.0


@dataclass(frozen=True)
class Shares:
    """The factors of a classifier's two parts, and what they cost on validation.

    Attributes:
        linear, network: factors of the logits, which temper them too; zero where a part is not used.
        nats: mean nats lost a validation example by `linear` alone, by `network` alone and by `both`.
        saved: nats that both together save over the better of the two, an example.
        error: standard error of that.
    """

    linear: float
    network: float
    nats: dict[str, float]
    saved: float
    error: float

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON."""
        return {**vars(self)}

    @property
    def words(self) -> str:
        """What was chosen, as a sentence."""
        if self.linear and self.network:
            why = f"together they save {self.saved:.3f} +- {self.error:.3f} nats a validation example over either alone"
            return f"The network and the regression both have a share: {why}."
        part, other = ("regression", "network") if self.linear else ("network", "regression")
        why = f"on validation both together save {self.saved:.3f} +- {self.error:.3f} nats over it"
        return f"Only the {part} has a share, the {other} none: {why}, which is not more than a standard error."


def choose_shares(labels: np.ndarray, linear: np.ndarray, network: np.ndarray) -> Shares:
    """The shares of two parts' logits, (M, C) each, on validation examples.

    Both are used where together they save more than a standard error over the better one; otherwise that one is used
    alone, so that a part which only fits the validation examples by chance is left out.
    """
    alone = {
        name: 1 / fit_temperature(labels, logits, lowest=_LOWEST_TEMPERATURE)
        for name, logits in (("linear", linear), ("network", network))
    }
    lost = {"linear": _nats(labels, alone["linear"] * linear), "network": _nats(labels, alone["network"] * network)}
    both = _fitted(labels, linear, network, (alone["linear"] / 2, alone["network"] / 2))
    lost["both"] = _nats(labels, both[0] * linear + both[1] * network)
    better = "linear" if lost["linear"].mean() <= lost["network"].mean() else "network"
    saved = lost[better] - lost["both"]
    error = float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else np.inf
    if not saved.mean() > error:
        both = (alone["linear"], 0.0) if better == "linear" else (0.0, alone["network"])
    nats = {name: float(values.mean()) for name, values in lost.items()}
    return Shares(both[0], both[1], nats, float(saved.mean()), error)


def _fitted(
    labels: np.ndarray, linear: np.ndarray, network: np.ndarray, start: tuple[float, float]
) -> tuple[float, float]:
    """The two factors, not negative, of least loss; the loss is convex in them (a logistic regression without bias)."""
    rows = np.arange(len(labels))

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax(factors[0] * linear + factors[1] * network)
        p[rows, labels] = np.maximum(p[rows, labels], _LEAST)
        value = -np.log(p[rows, labels]).mean()
        slopes = [((p * part).sum(1) - part[rows, labels]).mean() for part in (linear, network)]
        return float(value), np.array(slopes)

    found = minimize(loss, np.array(start), jac=True, bounds=[(0, _MOST), (0, _MOST)], method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def _nats(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Nats lost on each example, (M,)."""
    return -np.log(np.maximum(softmax(logits)[np.arange(len(labels)), labels], _LEAST))
