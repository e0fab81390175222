"""How much of a classifier's logits each of its parts gives, as validation examples say.

Parts are its network, a regression, and, where places matter, a small convolutional network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Integer

from genomamba.classifier.metrics import fit_temperature, softmax

PARTS: Final = {"linear": "regression", "network": "network", "cnn": "small CNN"}
"""The parts, and what they are called."""
_LEAST = 1e-12
_LOWEST_TEMPERATURE = 0.01
_MOST = 100.0


@dataclass(frozen=True)
class Shares:
    """The factors of a classifier's parts, and what they cost on validation.

    Attributes:
        factors: of each part's logits, which temper them too; zero where a part is not used.
        without: the same where the network is left out.
        nats: mean nats lost a validation example by each part alone and by each combination of them that was tried.
        saved: nats that what was chosen saves over the best that can be had without the network, an example; where the
            network is not used, what it would save.
        error: standard error of that.
    """

    factors: Mapping[str, float]
    without: Mapping[str, float]
    nats: Mapping[str, float]
    saved: float
    error: float

    @property
    def used(self) -> tuple[str, ...]:
        """The parts that have a share."""
        return tuple(name for name, factor in self.factors.items() if factor)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON."""
        mappings = {name: dict(getattr(self, name)) for name in ("factors", "without", "nats")}
        return {**mappings, "saved": self.saved, "error": self.error}

    @property
    def words(self) -> str:
        """What was chosen, as a sentence."""
        without = _listed(name for name, factor in self.without.items() if factor)
        if "network" in self.used:
            said = "alone has a share" if self.used == ("network",) else f"has a share beside {_listed(self.used)}"
            return (
                f"The network {said}: it saves {self.saved:.3f} +- {self.error:.3f} nats a validation example over "
                f"the best without it ({without})."
            )
        return (
            f"The network has no share, the class is decided by {_listed(self.used)}: on validation it would save "
            f"{self.saved:.3f} +- {self.error:.3f} nats, which is not more than a standard error."
        )


def added(factors: Mapping[str, float], parts: Mapping[str, np.ndarray]) -> Float[np.ndarray, "M C"]:
    """The parts' logits (M, C), added with their factors."""
    return np.sum([factor * parts[name] for name, factor in factors.items()], axis=0)


def choose_shares(labels: Integer[np.ndarray, " M"], parts: Mapping[str, np.ndarray]) -> Shares:
    """The shares of the parts' logits, (M, C) each, on validation examples.

    Beginning with the part that loses least alone, parts are added one by one as long as one saves more than a standard
    error, so that a part which only fits the validation examples by chance is left out.

    Args:
        labels: of the examples.
        parts: logits by name, the network's among them.
    """
    tried: dict[frozenset[str], tuple[dict[str, float], np.ndarray]] = {}

    def lost(names: frozenset[str]) -> np.ndarray:
        if names not in tried:
            factors = _fitted(labels, {name: parts[name] for name in parts if name in names})
            tried[names] = factors, _nats(labels, added(factors, parts))
        return tried[names][1]

    def best_of(names: list[str]) -> frozenset[str]:
        taken = min((frozenset([name]) for name in names), key=lambda one: lost(one).mean())
        while left := [taken | {name} for name in names if name not in taken]:
            more = min(left, key=lambda one: lost(one).mean())
            saved, error = _saved(lost(taken), lost(more))
            if not saved > error:
                break
            taken = more
        return taken

    taken = best_of(list(parts))
    simple = best_of([name for name in parts if name != "network"])
    saved, error = _saved(lost(simple), lost(taken if "network" in taken else simple | {"network"}))
    factors, without = ({name: tried[one][0].get(name, 0.0) for name in parts} for one in (taken, simple))
    nats = {" + ".join(name for name in parts if name in one): float(found[1].mean()) for one, found in tried.items()}
    return Shares(factors, without, nats, saved, error)


def _saved(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Nats saved an example, and the standard error."""
    saved = before - after
    return float(saved.mean()), float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else np.inf


def _fitted(labels: np.ndarray, parts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The factors, not negative, of least loss; the loss is convex in them (a logistic regression without bias)."""
    alone = [1 / fit_temperature(labels, logits, lowest=_LOWEST_TEMPERATURE) for logits in parts.values()]
    if len(alone) == 1:
        return dict(zip(parts, alone, strict=True))
    from scipy.optimize import minimize

    rows, logits = np.arange(len(labels)), list(parts.values())

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax(np.tensordot(factors, np.stack(logits), 1))
        p[rows, labels] = np.maximum(p[rows, labels], _LEAST)
        value = -np.log(p[rows, labels]).mean()
        slopes = [((p * part).sum(1) - part[rows, labels]).mean() for part in logits]
        return float(value), np.array(slopes)

    start = np.array(alone) / len(alone)
    found = minimize(loss, start, jac=True, bounds=[(0, _MOST)] * len(alone), method="L-BFGS-B")
    return dict(zip(parts, map(float, found.x), strict=True))


def _nats(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Nats lost on each example, (M,)."""
    return -np.log(np.maximum(softmax(logits)[np.arange(len(labels)), labels], _LEAST))


def _listed(names: Iterable[str]) -> str:
    """Parts but the network, in words."""
    words = [PARTS[name] for name in names if name != "network"]
    return " and ".join(words)
