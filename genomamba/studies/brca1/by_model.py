"""What a language model says of each change: log-likelihood ratios, and how its vectors of the alleles differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float, Float64

from genomamba import tokens
from genomamba.studies.brca1.labelled import Change, Stretch
from genomamba.studies.study import Place
from genomamba.variants.scores import Scorer, both_strands
from genomamba.variants.sites import Sequences
from mamba_data_prep.provenance import fingerprint

_SITES: Final = 32
"""Sites between which what was scored is kept."""
_SCALARS: Final = 4


@dataclass(frozen=True)
class ModelScores:
    """A model's answers, of `M` changes.

    Attributes:
        ratios: (M, 2) of both strands, bits; negative where the reference is likelier.
        distances: (M,) Euclidean, between the alleles' vectors of both strands.
        features: (M, F) the differences of those vectors, and the ratios.
    """

    ratios: Float64[np.ndarray, "M 2"]
    distances: Float64[np.ndarray, " M"]
    features: Float64[np.ndarray, "M F"]


def model_scores(
    name: str, changes: Sequence[Change], known: Stretch, model: str, window: int, place: Place
) -> ModelScores:
    """Scores all changes site by site; what a stopped run has scored is read again.

    Args:
        name: of the set.
        changes: single changes.
        known: the bases around them.
        model: a run, a bundle, or a model that ships.
        window: bases that the model reads around a change.
        place: where scores are kept.
    """
    from genomamba.models import model_path

    path = model_path(model)
    asked = {"set": name, "model": fingerprint(path).to_dict(), "window": window, "changes": len(changes)}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    file = f"scores-{key}.npy"
    fit = f"{name}-{Path(model).name}"
    place.once(fit, asked, lambda folder: _fill(folder / file, changes, known, path, window))
    found = np.load(place.out / "fits" / fit / file).astype(np.float64)
    return ModelScores(found[:, :2], found[:, 3], np.delete(found, [2, 3], axis=1))


def _fill(file: Path, changes: Sequence[Change], known: Stretch, model: Path, window: int) -> dict[str, int]:
    """Writes a row for each change into an array on the disk, which has no number where none is scored yet."""
    from genomamba.language_model.model import GenomeLM
    from genomamba.variants.causal import CausalScorer
    from genomamba.variants.masked import MaskedScorer

    network = GenomeLM.from_bundle(model)
    scorer = (CausalScorer if network.objective.looks_ahead else MaskedScorer)(network)
    sites: dict[int, list[int]] = {}
    for number, one in enumerate(changes):
        sites.setdefault(one.position, []).append(number)
    rows = _opened(file, (len(changes), _SCALARS + 2 * network.config.d_model))
    left = [numbers for numbers in sites.values() if not np.isfinite(rows[numbers]).all()]
    for first in range(0, len(left), _SITES):
        portion = left[first : first + _SITES]
        asked = [_sequences([changes[i] for i in numbers], known, window) for numbers in portion]
        for numbers, scored in zip(portion, _rows(asked, scorer), strict=True):
            rows[numbers] = scored
        rows.flush()
    return {"changes": len(changes)}


def _opened(file: Path, shape: tuple[int, int]) -> Float[np.memmap, "M F"]:
    if file.exists():
        return np.lib.format.open_memmap(file, mode="r+")
    rows = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    rows[:] = np.nan
    return rows


def _rows(sites: Sequence[Sequences], scorer: Scorer) -> Iterator[np.ndarray]:
    """Of each site, a row for each alternative: ratios of both strands, both distances, differences of vectors."""
    forward, reverse = scorer.strand(sites), scorer.strand([site.other_strand() for site in sites])
    for one, other in zip(forward, reverse, strict=True):
        vectors = np.concatenate([one.vectors, other.vectors], axis=1)
        yield np.concatenate([np.array(both_strands(one, other)), vectors[1:] - vectors[0]], axis=1)


def _sequences(changes: Sequence[Change], known: Stretch, window: int) -> Sequences:
    """The changes at one position between their flanks."""
    place, left = changes[0].position, window // 2
    before, after = known.at(place - left, place), known.at(place + 1, place + window - left)
    alleles = (changes[0].reference, *(one.alternative for one in changes))
    return Sequences(tokens.encode(before), tokens.encode(after), tuple(map(tokens.encode, alleles)))
