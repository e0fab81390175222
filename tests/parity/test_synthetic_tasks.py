"""The synthetic benchmark asks what it says, and feeding in pieces answers as feeding whole does."""

from __future__ import annotations

import pytest
import torch

from benchmarks.synthetic import train
from benchmarks.synthetic.tasks import ASK, COPIED, NOISE, SPECIAL, induction_heads, selective_copying


def test_induction_heads_ask_for_what_followed_the_sign():
    ids, answers = induction_heads(64, 50, torch.Generator().manual_seed(0))
    assert bool((ids[:, -1] == SPECIAL).all())
    for row, answer in zip(ids.tolist(), answers[:, 0].tolist(), strict=True):
        assert row.count(SPECIAL) == 2
        assert row[row.index(SPECIAL) + 1] == answer


def test_selective_copying_asks_for_the_tokens_in_their_order():
    ids, answers = selective_copying(64, 80, torch.Generator().manual_seed(0))
    assert bool((ids[:, -COPIED:] == ASK).all())
    for row, answer in zip(ids[:, :-COPIED].tolist(), answers.tolist(), strict=True):
        assert [token for token in row if token != NOISE] == answer


@pytest.mark.parametrize("mixer", train.MIXERS)
def test_pieces_answer_as_the_whole_does(mixer, monkeypatch):
    model = train.Tagger(mixer, 18, 16)
    ids = torch.randint(0, 18, (2, 40))
    whole = model(ids, 16)
    monkeypatch.setattr(train, "PIECE", 7)
    torch.testing.assert_close(model(ids, 16), whole, atol=1e-5, rtol=1e-4)
