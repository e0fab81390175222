"""From scores to figures: how well each judge orders changes, with intervals, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genomamba.studies.brca1.judges import AROUND, CADD, MODEL, RULE, RULES_HEAD
from genomamba.studies.brca1.labelled import Change
from genomamba.studies.brca1.options import Brca1Options
from genomamba.studies.charts import Chart, Line
from genomamba.studies.study import Findings, Row

PUBLISHED: Final = {"Evo 2 7B, zero-shot, as published": 0.875, "CADD, a later version, as published": 0.881}
"""AUROC on Findlay's variants, loss of function against the rest."""
RESAMPLES: Final = 1000
_TITLES: Final = {"findlay": "Findlay, function measured", "clinvar": "ClinVar, clinical judgement"}


@dataclass(frozen=True)
class Judged:
    """A set of changes and the scores of every judge, higher where harm is expected.

    Attributes:
        changes: labelled.
        untold: of judges that were told no label: name -> (M,).
        heads: of those that learnt from other exons: name -> (M,), the first from the rules alone.
    """

    changes: Sequence[Change]
    untold: Mapping[str, np.ndarray]
    heads: Mapping[str, np.ndarray]

    @property
    def harmful(self) -> np.ndarray:
        """(M,) the labels."""
        return np.array([one.harmful for one in self.changes])

    @property
    def positions(self) -> np.ndarray:
        """(M,) whose changes are alike."""
        return np.array([one.position for one in self.changes])


def findings(sets: Mapping[str, Judged], options: Brca1Options) -> Findings:
    """The tables, sentences and picture of all sets."""
    tables: dict[str, Sequence[Row]] = {}
    for name, one in sets.items():
        tables[_TITLES[name]] = _rows(one, PUBLISHED if name == "findlay" else {})
    for name, one in sets.items():
        tables[f"{_TITLES[name]}, by consequence"] = _by_consequence(one, options)
        tables[f"{_TITLES[name]}, learnt from other exons"] = _heads(one)
    lines = []
    for name in sets:
        drawn = [row for row in tables[_TITLES[name]] if row["low"] is not None]
        spans = [(row["low"], row["high"]) for row in drawn]
        lines.append(Line(_TITLES[name], [row["judge"] for row in drawn], [row["AUROC"] for row in drawn], spans))
    return Findings(
        title="Single changes of BRCA1",
        question="Do small language models of human DNA, which were never told which variants do harm, order the "
        "single changes of BRCA1 by harm, and do they do so better than rules that need no model?",
        protocol=_protocol(options),
        tables=tables,
        words=[
            word for name in sets for word in (
                *_words(name, tables[_TITLES[name]], options),
                *_words_of_heads(name, tables[f"{_TITLES[name]}, learnt from other exons"]),
            )
        ],
        chart=Chart(lines, "", "AUROC", (0.5, "chance")),
    )  # fmt: skip


def auroc(scores: np.ndarray, harmful: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The probability that a harmful change is scored above a harmless one, ties counting half.

    Args:
        scores, harmful: (M,) of each change.
        weights: (M,) how often each counts; once by default.

    Returns:
        Not a number where all are harmful or none is.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    _, place = np.unique(scores, return_inverse=True)
    bad, good = (np.bincount(place, weights * which) for which in (harmful, ~harmful))
    below = np.cumsum(good) - good
    pairs = bad.sum() * good.sum()
    return float((bad * (below + good / 2)).sum() / pairs) if pairs else math.nan


def interval(
    scores: np.ndarray, harmful: np.ndarray, positions: np.ndarray, seed: int = 0, less: np.ndarray | None = None
) -> tuple[float, float]:
    """95 % bootstrap interval of the AUROC, resampling positions, whose changes are alike.

    Args:
        scores, harmful, positions: (M,) of each change.
        seed: of the samples.
        less: (M,) scores of another judge, whose AUROC on the same sample is taken off.
    """
    _, place = np.unique(positions, return_inverse=True)
    rng, n = np.random.default_rng(seed), int(place.max()) + 1
    drawn = []
    for _ in range(RESAMPLES):
        weights = np.bincount(rng.integers(0, n, n), minlength=n)[place].astype(float)
        other = 0.0 if less is None else auroc(less, harmful, weights)
        drawn.append(auroc(scores, harmful, weights) - other)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _rows(one: Judged, published: Mapping[str, float]) -> list[Row]:
    rows: list[dict[str, Any]] = []
    for judge, values in one.untold.items():
        low, high = interval(values, one.harmful, one.positions)
        rows.append({"judge": judge, "AUROC": auroc(values, one.harmful), "low": low, "high": high})
    rows += [{"judge": judge, "AUROC": value, "low": None, "high": None} for judge, value in published.items()]
    counts = {"harmful": int(one.harmful.sum()), "others": int((~one.harmful).sum())}
    return [{**row, **counts} for row in sorted(rows, key=lambda row: -row["AUROC"])]


def _by_consequence(one: Judged, options: Brca1Options) -> list[Row]:
    """How well changes of one consequence are told apart, where the rule cannot say anything."""
    consequences = np.array([change.consequence for change in one.changes])
    judges = [name for name in (*(MODEL.format(model=model) for model in options.models), CADD) if name in one.untold]
    rows: list[Row] = []
    for consequence in np.unique(consequences):
        of = consequences == consequence
        counts = {"harmful": int(one.harmful[of].sum()), "others": int((~one.harmful[of]).sum())}
        if min(counts.values()) < _FEWEST:
            continue
        for judge in judges:
            scores = one.untold[judge][of]
            low, high = interval(scores, one.harmful[of], one.positions[of])
            found = {"AUROC": auroc(scores, one.harmful[of]), "low": low, "high": high}
            rows.append({"consequence": str(consequence), "judge": judge, **found, **counts})
    return rows


_FEWEST: Final = 20


def _heads(one: Judged) -> list[Row]:
    """What heads reach that learnt from other exons, and how much more than the one that was given rules alone."""
    rows: list[Row] = []
    rules = one.heads[RULES_HEAD]
    for name, scores in one.heads.items():
        if not np.isfinite(scores).all():
            continue
        low, high = interval(scores, one.harmful, one.positions)
        reached = auroc(scores, one.harmful)
        row = {"a head on": name, "AUROC": reached, "low": low, "high": high}
        more, least, most = None, None, None
        if name != RULES_HEAD:
            more = reached - auroc(rules, one.harmful)
            least, most = interval(scores, one.harmful, one.positions, less=rules)
        rows.append({**row, "more than the rules": more, "least": least, "most": most})
    return rows


def _words(name: str, rows: Sequence[Row], options: Brca1Options) -> list[str]:
    at = {row["judge"]: row for row in rows}
    rule = at[RULE]
    words = []
    for model in options.models:
        row = at[MODEL.format(model=model)]
        judgement = "no better than chance" if row["low"] <= 0.5 <= row["high"] else "better than chance"
        if row["high"] < 0.5:
            judgement = "worse than chance"
        how = "beats" if row["low"] > rule["high"] else "does not beat"
        words.append(
            f"{_TITLES[name]}: the log-likelihood ratio of {model} is {judgement} ({_told(row)}) and {how} the "
            f"consequence alone ({_told(rule)})."
        )
    return words


def _words_of_heads(name: str, rows: Sequence[Row]) -> list[str]:
    words = []
    for row in rows:
        if not row["a head on"].startswith(f"{RULES_HEAD} and "):
            continue
        gains = "gains nothing that can be told from chance"
        if row["least"] > 0:
            gains = f"gains {row['more than the rules']:.3f} (95 % interval {row['least']:.3f} to {row['most']:.3f})"
        elif row["most"] < 0:
            gains = f"loses {-row['more than the rules']:.3f}"
        words.append(f"{_TITLES[name]}: over a head on the rules, one on {row['a head on']} {gains}.")
    return words


def _told(row: Row) -> str:
    return f"AUROC {row['AUROC']:.3f}, 95 % interval {row['low']:.3f} to {row['high']:.3f}"


def _protocol(options: Brca1Options) -> list[str]:
    return [
        f"{' and '.join(options.models)} score each change as `genomamba variants` does, in {options.window:,} bases "
        "of GRCh38 around it, on both strands; harm is expected where the reference is likelier. The models that ship "
        "have read chromosome 20 alone.",
        "Findlay's saturation genome editing: loss of function against functional and intermediate changes. ClinVar: "
        "pathogenic and likely pathogenic against benign and likely benign single changes of BRCA1.",
        "The consequence alone orders nonsense and canonical splice sites before splice regions, these before "
        "missense, and these before the rest; ClinVar's judges know the consequence, so that "
        "there the rule meets itself.",
        "Every judge has one direction, chosen beforehand: harm is expected of unlikely bases, distant vectors, high G "
        "and C, and CpG.",
        "Heads are logistic regressions that are judged on exons that they were not fitted on (thirteen parts at "
        "most, the penalty chosen inside the others). The rules are the consequence, which base becomes "
        f"which, the {AROUND} bases on either side, G and C, CpG and the Markov model's ratio; a model's vectors are "
        "the differences of its vectors of the alleles, with its ratios, of both strands.",
        f"Intervals: {RESAMPLES:,} bootstrap samples of positions, since the changes at a position are alike.",
        "The Markov model is counted on the stretch around BRCA1 without BRCA1, on both strands.",
    ]  # fmt: skip
