"""What is known of an allele once both strands are read, and how the strands' answers become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from genomamba.variants.sites import Place, Placing, Sequences, Variant


class StrandScores(NamedTuple):
    """What a model says of a site's alleles, read from one strand.

    Attributes:
        gains: (A - 1,) log-likelihood of each alternative minus that of the reference, bits.
        vectors: (A, D) the vector after the last layer at the last base of each allele, the reference first.
    """

    gains: Float64[np.ndarray, " alternatives"]
    vectors: Float64[np.ndarray, "alleles D"]


@runtime_checkable
class Scorer(Protocol):
    """A language model that is asked about alleles."""

    def strand(self, sites: Sequence[Sequences]) -> list[StrandScores]:
        """Scores sites as they are written, in their order."""
        ...


class AlleleScores(NamedTuple):
    """An alternative allele beside the reference.

    Attributes:
        forward, reverse: log-likelihood ratio on the genome's strand and on the other one, bits.
        cosine: 1 - the cosine of the angle between the alleles' vectors, those of both strands behind one another.
        l2: the Euclidean distance between them.
    """

    forward: float
    reverse: float
    cosine: float
    l2: float

    @property
    def ratio(self) -> float:
        """The mean of both strands' log-likelihood ratios, bits; negative where the model expects the reference."""
        return (self.forward + self.reverse) / 2


def score_sites(sites: Sequence[Sequences], scorer: Scorer) -> list[list[AlleleScores]]:
    """Scores each alternative allele of sites on both strands, in their order.

    Args:
        sites: on the genome's strand.
        scorer: a model.
    """
    forward, reverse = scorer.strand(sites), scorer.strand([site.other_strand() for site in sites])
    return [both_strands(one, other) for one, other in zip(forward, reverse, strict=True)]


def score_variants(variants: Sequence[Variant], placing: Placing, scorer: Scorer) -> list[list[AlleleScores | None]]:
    """Scores each alternative allele of records; None where it has a reason not to be.

    Records of one place share its reading. Which records stand together changes no score beyond rounding.
    """
    asked: dict[Place, list[str]] = {}
    for variant in variants:
        for allele, reason in zip(variant.record.alternatives, variant.reasons, strict=True):
            if variant.place is not None and reason is None:
                alleles = asked.setdefault(variant.place, [])
                alleles += [allele.upper()] * (allele.upper() not in alleles)
    sites = [placing.sequences(place, tuple(alleles)) for place, alleles in asked.items()]
    found = {
        (place, allele): score
        for (place, alleles), scores in zip(asked.items(), score_sites(sites, scorer), strict=True)
        for allele, score in zip(alleles, scores, strict=True)
    }
    return [
        [
            None if reason is not None or variant.place is None else found[variant.place, allele.upper()]
            for allele, reason in zip(variant.record.alternatives, variant.reasons, strict=True)
        ]
        for variant in variants
    ]


def both_strands(forward: StrandScores, reverse: StrandScores) -> list[AlleleScores]:
    """The scores of a site's alternative alleles, from what was said of each strand."""
    reference, *alternatives = np.concatenate([forward.vectors, reverse.vectors], axis=1)
    return [
        AlleleScores(float(one), float(other), _cosine(reference, vector), float(np.linalg.norm(vector - reference)))
        for one, other, vector in zip(forward.gains, reverse.gains, alternatives, strict=True)
    ]


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return max(0.0, 1 - float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-30)))
