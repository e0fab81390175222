"""Alleles under a model that foretells the next base.

The log-likelihood of a sequence is the sum over its bases, from the second on, of the log-probability of each given all
before it; what is no base is no part of the sum. Alleles of a site share what stands before them, so that part cancels
in their difference and is read once: the model's state after it, its table of counts included, is carried into each
allele and the bases after it. On the other strand the parts change places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from genomamba.language_model.likelihood import LikelihoodState, log2_likelihood
from genomamba.language_model.model import GenomeLM
from genomamba.prediction.predictor import length_batches, padded
from genomamba.variants.scores import StrandScores
from genomamba.variants.sites import Sequences

BATCH_BASES = 2**13
"""Bases that go through the model at a time; more are no faster on a CPU."""


@dataclass(frozen=True, eq=False)
class CausalScorer:
    """A causal language model that is asked about alleles.

    Args:
        model: in evaluation mode.
        batch_bases: most bases, padding included, that go through the model at a time (at least one row does).
        on_batch: called after every batch, for showing progress.
    """

    model: GenomeLM
    batch_bases: int = BATCH_BASES
    on_batch: Callable[[], object] = lambda: None

    def strand(self, sites: Sequence[Sequences]) -> list[StrandScores]:
        """Scores sites as they are written, in their order.

        Raises:
            ValueError: the model looks both ways.
        """
        found: dict[int, StrandScores] = {}
        by_length = sorted(range(len(sites)), key=lambda i: -len(sites[i].before))
        for length, group in groupby(by_length, key=lambda i: len(sites[i].before)):
            numbers = list(group)
            rows = max(1, self.batch_bases // max(1, length))
            for first in range(0, len(numbers), rows):
                chosen = numbers[first : first + rows]
                state = self._state([sites[i] for i in chosen]) if length else None
                found |= zip(chosen, self._ends([sites[i] for i in chosen], state), strict=True)
        return [found[i] for i in range(len(sites))]

    def _state(self, sites: Sequence[Sequences]) -> LikelihoodState:
        """The state after what stands before the alleles."""
        before = log2_likelihood(self.model, self._on_device(np.stack([site.before for site in sites])))
        self.on_batch()
        return before.state

    def _ends(self, sites: Sequence[Sequences], state: LikelihoodState | None) -> Iterator[StrandScores]:
        """Every allele of every site, with what stands after it, from the state of its site."""
        ends = [np.concatenate([allele, site.after]) for site in sites for allele in site.alleles]
        last = np.array([len(allele) - 1 for site in sites for allele in site.alleles])
        owner = np.repeat(np.arange(len(sites)), [len(site.alleles) for site in sites])
        bits = np.empty(len(ends))
        vectors = np.empty((len(ends), self.model.config.d_model))
        for chosen in length_batches([len(end) for end in ends], self.batch_bases):
            ids = padded([ends[i] for i in chosen])[0].to(self._device)
            rows = torch.from_numpy(owner[chosen]).to(self._device)
            told = log2_likelihood(self.model, ids, None if state is None else state.rows(rows))
            bits[chosen] = told.log2_p.nansum(dim=1).cpu().numpy()
            vectors[chosen] = told.hidden[torch.arange(len(chosen)), torch.from_numpy(last[chosen])].cpu().numpy()
            self.on_batch()
        cuts = np.flatnonzero(np.diff(owner)) + 1
        each = np.split(bits, cuts)
        return map(StrandScores, (one[1:] - one[0] for one in each), np.split(vectors, cuts))

    def _on_device(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(ids).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
