"""Scores of harm, higher where more is expected: of the language model, of counts, and of rules without any model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from genomamba import tokens
from genomamba.studies.brca1.labelled import Change, Stretch, stretch
from genomamba.studies.brca1.options import Brca1Options
from genomamba.studies.study import Place
from genomamba.variants.sites import Sequences
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.provenance import fingerprint

NEARBY: Final = 128
"""Bases around a change whose G and C are counted."""
MARKOV_ORDER: Final = 5
_STRENGTH: Final = 100.0
_SITES: Final = 32
MODEL, DISTANCE = "{model}, log-likelihood ratio", "{model}, distance of the vectors"
RULE, CADD = "the consequence alone", "CADD 1.3, as the table gives it"


def judged(name: str, changes: Sequence[Change], options: Brca1Options, place: Place) -> dict[str, np.ndarray]:
    """Every judge's score of each change: name -> (M,)."""
    from genomamba.models import model_path

    known = stretch(options, place.data)
    model = model_path(options.model)
    asked = {"set": name, "model": fingerprint(model).to_dict(), "window": options.window, "changes": len(changes)}
    made = place.once(f"{name}-scores", asked, lambda folder: _by_model(changes, known, model, options.window, folder))
    scores = np.array(made["scores"])
    found = {
        MODEL.format(model=options.model): -scores[:, :2].mean(axis=1),
        DISTANCE.format(model=options.model): scores[:, 3],
        f"Markov model of order {MARKOV_ORDER}": -_by_markov(changes, known),
        RULE: np.array([one.rank for one in changes], float),
        f"G and C among {NEARBY} bases": np.array([_gc(one, known) for one in changes]),
        "the site is C or G of a CpG": np.array([_in_cpg(one, known) for one in changes], float),
    }
    if all(one.cadd is not None for one in changes):
        found[CADD] = np.array([one.cadd for one in changes], float)
    return found


def _by_model(changes: Sequence[Change], known: Stretch, path: Path, window: int, folder: Path) -> dict[str, Any]:
    """Scores of all changes, site by site; what a stopped run has scored is read again.

    Returns:
        `scores`, of each change: ratios of both strands in bits, cosine and Euclidean distance.
    """
    from genomamba.language_model.model import GenomeLM
    from genomamba.variants.causal import CausalScorer
    from genomamba.variants.scores import score_sites

    sites: dict[int, list[int]] = {}
    for number, one in enumerate(changes):
        sites.setdefault(one.position, []).append(number)
    kept = folder / "partial.json"
    done: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}
    scorer = CausalScorer(GenomeLM.from_bundle(path))
    left = [numbers for numbers in sites.values() if str(numbers[0]) not in done]
    for first in range(0, len(left), _SITES):
        portion = left[first : first + _SITES]
        asked = [_sequences([changes[i] for i in numbers], known, window) for numbers in portion]
        for numbers, scores in zip(portion, score_sites(asked, scorer), strict=True):
            done |= {str(i): list(score) for i, score in zip(numbers, scores, strict=True)}
        with atomic_write(kept) as file:
            json.dump(done, file)
    return {"scores": [done[str(i)] for i in range(len(changes))]}


def _sequences(changes: Sequence[Change], known: Stretch, window: int) -> Sequences:
    """The changes at one position between their flanks."""
    place, left = changes[0].position, window // 2
    before, after = known.at(place - left, place), known.at(place + 1, place + window - left)
    alleles = (changes[0].reference, *(one.alternative for one in changes))
    return Sequences(tokens.encode(before), tokens.encode(after), tuple(map(tokens.encode, alleles)))


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
