"""Log-likelihoods of sequences in pieces: what the whole gives, whatever the pieces, and never of what is no base."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.config import ModelConfig, ObjectiveConfig
from genomamba.language_model.likelihood import LikelihoodState, log2_likelihood
from genomamba.language_model.model import GenomeLM, window_nats


@pytest.fixture(params=[True, False], ids=["with counts", "network alone"])
def model(request: pytest.FixtureRequest, make_language_model: Callable[..., GenomeLM]) -> GenomeLM:
    return make_language_model(counts=request.param)


@pytest.fixture
def ids() -> torch.Tensor:
    """Two sequences with repeats, so that long contexts are held, and with runs of N."""
    rng = np.random.default_rng(5)
    rows = rng.integers(7, 11, (2, 300)).astype(np.uint8)
    rows[:, 200:260] = rows[:, 20:80]
    rows[0, 90:94] = tokens.N
    rows[1, 0] = tokens.N
    return torch.from_numpy(rows)


def in_pieces(model: GenomeLM, ids: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    state: LikelihoodState | None = None
    found = []
    for start, end in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        log2_p, _, state = log2_likelihood(model, ids[:, start:end], state)
        found.append(log2_p)
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("cuts", [[1], [2, 3, 4, 5], [15, 16, 17, 33], [92, 205, 299], list(range(1, 300))], ids=str)
def test_pieces_give_what_the_whole_gives(model: GenomeLM, ids: torch.Tensor, cuts: list[int]) -> None:
    whole = log2_likelihood(model, ids).log2_p
    if model.table is not None:
        assert int((model.table.lookup(ids).long >= 0).sum()) > 60  # contexts that reach back over the cuts
    assert torch.allclose(in_pieces(model, ids, cuts), whole, rtol=0, atol=1e-5, equal_nan=True)


def test_the_sum_is_that_of_the_training_loss(model: GenomeLM, ids: torch.Tensor) -> None:
    nats, n_bases = window_nats(model(ids), ids)
    log2_p = log2_likelihood(model, ids).log2_p
    assert torch.equal((~log2_p.isnan()).sum(1), n_bases)
    assert torch.allclose(-log2_p.nansum(1) * math.log(2), nats.double(), rtol=1e-5)


def test_it_is_the_recomputation_in_float64(model: GenomeLM, ids: torch.Tensor) -> None:
    """Base by base from logits of a float64 model that reads each beginning anew, as the definition says."""
    found = log2_likelihood(model, ids).log2_p[0]
    exact = GenomeLM(model.config, None if model.table is None else model.table.shape).double().eval()
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        for place in (1, 2, 17, 89, 94, 95, 230, 299):
            p = exact(ids[:1, :place])[0, -1, 7:11].exp()
            told = float(torch.log2(p[int(ids[0, place]) - 7] / p.sum()))
            assert float(found[place]) == pytest.approx(told, abs=1e-5)


def test_what_is_no_base_and_the_first_base_are_not_scored(model: GenomeLM, ids: torch.Tensor) -> None:
    missing = log2_likelihood(model, ids).log2_p.isnan()
    assert missing[0].nonzero().flatten().tolist() == [0, 90, 91, 92, 93]
    assert missing[1].nonzero().flatten().tolist() == [0]
    padded = torch.nn.functional.pad(ids, (0, 20), value=tokens.PAD)
    again = log2_likelihood(model, padded).log2_p
    assert again[:, 300:].isnan().all()
    assert torch.allclose(again[:, :300], log2_likelihood(model, ids).log2_p, rtol=0, atol=1e-5, equal_nan=True)


def test_one_beginning_may_have_several_ends(model: GenomeLM, ids: torch.Tensor) -> None:
    beginning, ends = ids[:1, :150], ids[:, 150:180]
    state = log2_likelihood(model, beginning).state
    together = log2_likelihood(model, ends, state.rows(torch.tensor([0, 0]))).log2_p
    for row, end in zip(together, ends, strict=True):
        alone = log2_likelihood(model, torch.cat([beginning, end[None]], dim=1)).log2_p[0, 150:]
        assert torch.allclose(row, alone, rtol=0, atol=1e-5, equal_nan=True)


def test_a_model_that_looks_both_ways_has_no_pieces(ids: torch.Tensor) -> None:
    shape = ModelConfig(d_model=16, n_layers=1, d_state=4, bidirectional="add")
    model = GenomeLM(shape, None, ObjectiveConfig(kind="masked")).eval()
    with pytest.raises(ValueError, match="looks both ways"):
        log2_likelihood(model, ids)
