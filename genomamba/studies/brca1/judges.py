"""Scores of harm, higher where more is expected: of language models, of counts, and of rules without any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64

from genomamba import tokens
from genomamba.studies.brca1.by_model import ModelScores
from genomamba.studies.brca1.head import exons, learnt
from genomamba.studies.brca1.labelled import Change, Stretch

NEARBY: Final = 128
"""Bases around a change whose G and C are counted."""
AROUND: Final = 10
"""Bases on either side of a change whose letters a head is given."""
MARKOV_ORDER: Final = 5
_STRENGTH: Final = 100.0
MODEL, DISTANCE = "{model}, log-likelihood ratio", "{model}, distance of the vectors"
RULE, CADD = "the consequence alone", "CADD 1.3, as the table gives it"
RULES_HEAD: Final = "the rules"


def judged(
    changes: Sequence[Change], known: Stretch, models: Mapping[str, ModelScores]
) -> dict[str, Float64[np.ndarray, " M"]]:
    """Every judge's score of each change, of those that are told no label: name -> (M,)."""
    found: dict[str, np.ndarray] = {}
    for name, scores in models.items():
        found |= {MODEL.format(model=name): -scores.ratios.mean(axis=1), DISTANCE.format(model=name): scores.distances}
    found |= {
        f"Markov model of order {MARKOV_ORDER}": -_by_markov(changes, known),
        RULE: np.array([one.rank for one in changes], float),
        f"G and C among {NEARBY} bases": np.array([_gc(one, known) for one in changes]),
        "the site is C or G of a CpG": np.array([_in_cpg(one, known) for one in changes], float),
    }
    if all(one.cadd is not None for one in changes):
        found[CADD] = np.array([one.cadd for one in changes], float)
    return found


def judged_by_heads(
    changes: Sequence[Change], known: Stretch, models: Mapping[str, ModelScores]
) -> dict[str, Float64[np.ndarray, " M"]]:
    """The score of each change by heads that learnt from the labels of other exons: name -> (M,).

    The first one has the rules alone.
    """
    harmful, groups = np.array([one.harmful for one in changes], float), exons(changes)
    rules = _rules(changes, known)
    found = {RULES_HEAD: learnt(rules, harmful, groups)}
    for name, scores in models.items():
        found[f"{name}'s vectors"] = learnt(scores.features, harmful, groups)
        both = np.concatenate([rules, scores.features], axis=1)
        found[f"the rules and {name}'s vectors"] = learnt(both, harmful, groups)
    return found


def _rules(changes: Sequence[Change], known: Stretch) -> Float64[np.ndarray, "M F"]:
    """What is known of each change without a model: consequence, bases, the bases around, G and C, CpG, counts."""
    kinds = sorted({one.consequence for one in changes})
    pairs = [old + new for old in "ACGT" for new in "ACGT" if old != new]
    around = np.stack([known.at(one.position - AROUND, one.position + AROUND + 1) for one in changes])
    letters = around[:, :, None] == np.frombuffer(b"ACGT", np.uint8)
    return np.concatenate(
        [
            np.array([[one.consequence == kind for kind in kinds] for one in changes], float),
            np.array([[one.rank, _gc(one, known), _in_cpg(one, known)] for one in changes], float),
            np.array([[one.reference + one.alternative == pair for pair in pairs] for one in changes], float),
            letters.reshape(len(changes), -1).astype(float),
            _by_markov(changes, known)[:, None],
        ],
        axis=1,
    )


def _by_markov(changes: Sequence[Change], known: Stretch) -> Float64[np.ndarray, " M"]:
    """Log-likelihood ratios, bits, mean of both strands, of counts of all of the stretch but BRCA1's own part."""
    from genomamba.language_model.markov import MarkovCounts

    places = [one.position for one in changes]
    ids = tokens.encode(known.bases)
    inside = slice(max(0, min(places) - known.first - 1000), max(places) - known.first + 1000)
    counts = MarkovCounts(MARKOV_ORDER)
    for part in (ids[: inside.start], ids[inside.stop :]):
        if len(part):
            counts.add(np.ascontiguousarray(part[None]), both_strands=True)
    p = np.full((1, 4), 0.25)
    for table in counts.tables():  # p_k = (n_k + m p_{k-1}) / (sum n_k + m), as in `genomamba.language_model.markov`
        shorter = np.tile(p, (len(table) // len(p), 1))
        p = (table + _STRENGTH * shorter) / (table.sum(1, keepdims=True) + _STRENGTH)
    log2_p = np.log2(p)
    ratios = np.zeros(len(changes))
    for number, one in enumerate(changes):
        around = tokens.encode(known.at(one.position - MARKOV_ORDER, one.position + MARKOV_ORDER + 1))
        other = around.copy()
        other[MARKOV_ORDER] = tokens.encode(one.alternative)[0]
        turned = tokens.reverse_complement(around), tokens.reverse_complement(other)
        ratios[number] = sum(
            _log_likelihood(new, log2_p) - _log_likelihood(old, log2_p) for old, new in ((around, other), turned)
        )
    return ratios / 2


def _log_likelihood(ids: np.ndarray, log2_p: np.ndarray) -> float:
    """Of all bases that have a whole context before them, bits."""
    base = ids.astype(np.int64) - tokens.FIRST_BASE
    weights = 4 ** np.arange(MARKOV_ORDER)[::-1]
    contexts = np.lib.stride_tricks.sliding_window_view(base[:-1], MARKOV_ORDER) @ weights
    return float(log2_p[contexts, base[MARKOV_ORDER:]].sum())


def _gc(one: Change, known: Stretch) -> float:
    near = known.at(one.position - NEARBY // 2, one.position + NEARBY // 2)
    return float(np.isin(near, np.frombuffer(b"CG", np.uint8)).mean())


def _in_cpg(one: Change, known: Stretch) -> bool:
    near = known.at(one.position - 1, one.position + 2).tobytes()
    return b"CG" in (near[:2], near[1:])
