"""From scores to figures: how well each judge orders changes, with intervals, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from genomamba.studies.brca1.judges import CADD, MODEL, RULE
from genomamba.studies.brca1.labelled import Change
from genomamba.studies.brca1.options import Brca1Options
from genomamba.studies.charts import Chart, Line
from genomamba.studies.study import Findings, Row

PUBLISHED: Final = {"Evo 2 7B, zero-shot, as published": 0.875, "CADD, a later version, as published": 0.881}
"""AUROC on Findlay's variants, loss of function against the rest."""
RESAMPLES: Final = 1000
_TITLES: Final = {"findlay": "Findlay, function measured", "clinvar": "ClinVar, clinical judgement"}

Judged = tuple[Sequence[Change], Mapping[str, np.ndarray]]


def findings(sets: Mapping[str, Judged], options: Brca1Options) -> Findings:
    """The tables, sentences and picture of all sets."""
    tables: dict[str, Sequence[Row]] = {}
    for name, (changes, scores) in sets.items():
        tables[_TITLES[name]] = _rows(changes, scores, PUBLISHED if name == "findlay" else {})
    for name, (changes, scores) in sets.items():
        tables[f"{_TITLES[name]}, by consequence"] = _by_consequence(changes, scores, options)
    lines = []
    for name in sets:
        drawn = [row for row in tables[_TITLES[name]] if row["low"] is not None]
        spans = [(row["low"], row["high"]) for row in drawn]
        lines.append(Line(_TITLES[name], [row["judge"] for row in drawn], [row["AUROC"] for row in drawn], spans))
    return Findings(
        title="Single changes of BRCA1",
        question="Does a small language model of human DNA, which was never told which variants do harm, order the "
        "single changes of BRCA1 by harm, and does it do so better than rules that need no model?",
        protocol=_protocol(options),
        tables=tables,
        words=[word for name in sets for word in _words(name, tables[_TITLES[name]], options)],
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


def interval(scores: np.ndarray, harmful: np.ndarray, positions: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the AUROC, resampling positions, whose changes are alike."""
    _, place = np.unique(positions, return_inverse=True)
    rng, n = np.random.default_rng(seed), int(place.max()) + 1
    drawn = [
        auroc(scores, harmful, np.bincount(rng.integers(0, n, n), minlength=n)[place].astype(float))
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _rows(changes: Sequence[Change], scores: Mapping[str, np.ndarray], published: Mapping[str, float]) -> list[Row]:
    harmful = np.array([one.harmful for one in changes])
    positions = np.array([one.position for one in changes])
    rows: list[dict[str, Any]] = []
    for judge, values in scores.items():
        low, high = interval(values, harmful, positions)
        rows.append({"judge": judge, "AUROC": auroc(values, harmful), "low": low, "high": high})
    rows += [{"judge": judge, "AUROC": value, "low": None, "high": None} for judge, value in published.items()]
    counts = {"harmful": int(harmful.sum()), "others": int((~harmful).sum())}
    return [{**row, **counts} for row in sorted(rows, key=lambda row: -row["AUROC"])]


def _by_consequence(changes: Sequence[Change], scores: Mapping[str, np.ndarray], options: Brca1Options) -> list[Row]:
    """How well changes of one consequence are told apart, where the rule cannot say anything."""
    harmful = np.array([one.harmful for one in changes])
    positions = np.array([one.position for one in changes])
    consequences = np.array([one.consequence for one in changes])
    judges = [judge for judge in (MODEL.format(model=options.model), CADD) if judge in scores]
    rows: list[Row] = []
    for consequence in np.unique(consequences):
        of = consequences == consequence
        if min(harmful[of].sum(), (~harmful[of]).sum()) < _FEWEST:
            continue
        row: dict[str, Any] = {"consequence": str(consequence), "harmful": int(harmful[of].sum()), "others": 0}
        row["others"] = int(of.sum()) - row["harmful"]
        for judge in judges:
            low, high = interval(scores[judge][of], harmful[of], positions[of])
            row[f"{judge}, AUROC"] = auroc(scores[judge][of], harmful[of])
            row[f"{judge}, low"], row[f"{judge}, high"] = low, high
        rows.append(row)
    return rows


_FEWEST: Final = 20


def _words(name: str, rows: Sequence[Row], options: Brca1Options) -> list[str]:
    at = {row["judge"]: row for row in rows}
    model = at[MODEL.format(model=options.model)]
    better = [row["judge"] for row in rows if row["AUROC"] > model["AUROC"]]
    judgement = "no better than chance" if model["low"] <= 0.5 <= model["high"] else "better than chance"
    if model["high"] < 0.5:
        judgement = "worse than chance"
    words = [f"{_TITLES[name]}: the log-likelihood ratio of {options.model} is {judgement} ({_told(model)})."]
    if better:
        words.append(f"{_TITLES[name]}: it loses to {', '.join(better)}.")
    rule = at[RULE]
    how = "beats" if model["low"] > rule["high"] else "does not beat"
    return [*words, f"{_TITLES[name]}: it {how} the consequence alone ({_told(rule)})."]


def _told(row: Row) -> str:
    return f"AUROC {row['AUROC']:.3f}, 95 % interval {row['low']:.3f} to {row['high']:.3f}"


def _protocol(options: Brca1Options) -> list[str]:
    return [
        f"{options.model} scores each change as `genomamba variants` does, in {options.window:,} bases of GRCh38 "
        "around it, on both strands; harm is expected where the reference is likelier. human-1.4m has read chromosome "
        "20 alone.",
        "Findlay's saturation genome editing: loss of function against functional and intermediate changes. ClinVar: "
        "pathogenic and likely pathogenic against benign and likely benign single changes of BRCA1.",
        "The consequence alone orders nonsense and canonical splice sites before splice regions, these before "
        "missense, and these before the rest; ClinVar's judges know the consequence, so that "
        "there the rule meets itself.",
        "Every judge has one direction, chosen beforehand: harm is expected of unlikely bases, distant vectors, high G "
        "and C, and CpG.",
        f"Intervals: {RESAMPLES:,} bootstrap samples of positions, since the changes at a position are alike.",
        "The Markov model is counted on the stretch around BRCA1 without BRCA1, on both strands.",
    ]  # fmt: skip
