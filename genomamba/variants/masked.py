"""Alleles under a model that looks both ways.

An SNV costs one question: the site is hidden, and the log-probabilities of its two bases there are compared. Other
alleles are compared by their pseudo-likelihood: each base of the allele, and `FLANK` bases on either side of it, is
hidden by itself, and the log-probabilities of what was hidden are added up. That is a pass over the window for each of
these bases, some seventy for a short indel; bases further away are taken to be as likely beside either allele.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from genomamba import tokens
from genomamba.language_model.model import GenomeLM
from genomamba.variants.causal import BATCH_BASES
from genomamba.variants.scores import StrandScores
from genomamba.variants.sites import Sequences

FLANK: Final = 16
"""Bases on either side of an indel that are part of its pseudo-likelihood."""
_BASES: Final = slice(tokens.FIRST_BASE, tokens.FIRST_BASE + 4)


class _Question(NamedTuple):
    """The base at `place` of an allele between its flanks, hidden."""

    site: int
    allele: int
    place: int


@dataclass(frozen=True, eq=False)
class MaskedScorer:
    """A masked language model that is asked about alleles.

    Args:
        model: in evaluation mode.
        batch_bases: most bases that go through the model at a time (at least one row does).
        on_batch: called after every batch, for showing progress.
    """

    model: GenomeLM
    batch_bases: int = BATCH_BASES
    on_batch: Callable[[], object] = lambda: None

    def strand(self, sites: Sequence[Sequences]) -> list[StrandScores]:
        """Scores sites as they are written, in their order."""
        whole = [[np.concatenate([site.before, one, site.after]) for one in site.alleles] for site in sites]
        vectors = self._vectors(sites, whole)
        asked = [question for number, site in enumerate(sites) for question in _questions(number, site, whole[number])]
        told = dict(zip(asked, self._answers(asked, whole), strict=True))
        gains = [
            np.array([_gain(number, allele, site, whole[number], told) for allele in range(1, len(site.alleles))])
            for number, site in enumerate(sites)
        ]
        return list(map(StrandScores, gains, vectors))

    def _vectors(
        self, sites: Sequence[Sequences], whole: Sequence[Sequence[UInt8[np.ndarray, " _"]]]
    ) -> list[Float64[np.ndarray, "_ D"]]:
        rows = [row for site in whole for row in site]
        last = [len(site.before) + len(allele) - 1 for site in sites for allele in site.alleles]
        found = np.empty((len(rows), self.model.config.d_model))
        for chosen in self._batches(rows):
            hidden = self.model.embeddings(self._on_device(np.stack([rows[i] for i in chosen])))
            found[chosen] = hidden[torch.arange(len(chosen)), torch.tensor([last[i] for i in chosen])].cpu().numpy()
            self.on_batch()
        return np.split(found, np.cumsum([len(site) for site in whole])[:-1])

    def _answers(
        self, asked: Sequence[_Question], whole: Sequence[Sequence[UInt8[np.ndarray, " _"]]]
    ) -> Float64[np.ndarray, "questions 4"]:
        """log2 of the probability of A, C, G and T for each question."""
        rows = [whole[question.site][question.allele] for question in asked]
        found = np.empty((len(rows), 4))
        for chosen in self._batches(rows):
            ids = np.stack([rows[i] for i in chosen])
            places = np.array([asked[i].place for i in chosen])
            ids[np.arange(len(ids)), places] = tokens.MASK
            logits = self.model(self._on_device(ids))[torch.arange(len(ids)), torch.from_numpy(places), _BASES]
            found[chosen] = logits.double().log_softmax(dim=1).cpu().numpy() / np.log(2)
            self.on_batch()
        return found

    def _batches(self, rows: Sequence[UInt8[np.ndarray, " _"]]) -> Iterator[list[int]]:
        """Numbers of rows of one length, few enough to go through the model together."""
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        for length, group in groupby(order, key=lambda i: len(rows[i])):
            numbers, count = list(group), max(1, self.batch_bases // length)
            for first in range(0, len(numbers), count):
                with torch.inference_mode():
                    yield numbers[first : first + count]

    def _on_device(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids).to(next(self.model.parameters()).device)


def _is_snv(site: Sequences, allele: int) -> bool:
    return len(site.alleles[0]) == len(site.alleles[allele]) == 1


def _hidden(number: int, allele: int, site: Sequences, row: UInt8[np.ndarray, " _"]) -> list[_Question]:
    """The bases of an allele and near it, each of which is hidden by itself."""
    first = max(0, len(site.before) - FLANK)
    last = min(len(row), len(site.before) + len(site.alleles[allele]) + FLANK)
    known = (row >= tokens.FIRST_BASE) & (row < tokens.FIRST_BASE + 4)
    return [_Question(number, allele, place) for place in range(first, last) if known[place]]


def _questions(number: int, site: Sequences, rows: Sequence[UInt8[np.ndarray, " _"]]) -> list[_Question]:
    """All that has to be asked about a site, nothing twice."""
    found: list[_Question] = []
    snv = [_is_snv(site, allele) for allele in range(1, len(site.alleles))]
    if any(snv):
        found.append(_Question(number, 0, len(site.before)))
    for allele, row in enumerate(rows):
        if (allele and not snv[allele - 1]) or (not allele and not all(snv)):
            found += _hidden(number, allele, site, row)
    return list(dict.fromkeys(found))


def _gain(
    number: int,
    allele: int,
    site: Sequences,
    rows: Sequence[UInt8[np.ndarray, " _"]],
    told: dict[_Question, Float64[np.ndarray, " 4"]],
) -> float:
    """The bits that an allele has over the reference."""
    if _is_snv(site, allele):
        at_site = told[_Question(number, 0, len(site.before))]
        reference, alternative = (int(site.alleles[i][0]) - tokens.FIRST_BASE for i in (0, allele))
        return float(at_site[alternative] - at_site[reference])
    reference, alternative = (
        sum(told[one][rows[i][one.place] - tokens.FIRST_BASE] for one in _hidden(number, i, site, rows[i]))
        for i in (0, allele)
    )
    return float(alternative - reference)
