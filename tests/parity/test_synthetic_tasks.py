"""The synthetic benchmark asks what it says, and feeding in pieces answers as feeding whole does."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.synthetic import tasks, train
from benchmarks.synthetic.tasks import ASK, COPIED, NOISE, SPECIAL, TASKS, VOCABULARY


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    "make", [tasks.induction_heads, tasks.induction_heads_near_and_far, tasks.induction_heads_from_the_start]
)
def test_induction_heads_ask_for_what_followed_the_sign(make):
    ids, answers = make(64, 50, generator())
    assert bool((ids[:, -1] == SPECIAL).all())
    for row, answer in zip(ids.tolist(), answers[:, 0].tolist(), strict=True):
        assert row.count(SPECIAL) == 2
        assert row[row.index(SPECIAL) + 1] == answer
        assert answer < VOCABULARY


def test_the_sign_stands_where_each_maker_says():
    def places(make) -> torch.Tensor:
        return (make(4000, 256, generator())[0] == SPECIAL).int().argmax(1)

    anywhere, practised = places(tasks.induction_heads), places(tasks.induction_heads_near_and_far)
    assert bool((places(tasks.induction_heads_from_the_start) == 0).all())
    for found in (anywhere, practised):
        assert int(found.min()) <= 2  # every place of the sequence can occur, the first and the last included
        assert int(found.max()) == 253
    assert 120 < anywhere.float().mean().item() < 134
    near, far = (((255 - practised >= low) & (255 - practised <= 2 * low)).float().mean() for low in (2, 64))
    assert 0.5 < near / far < 2


def test_selective_copying_asks_for_the_tokens_in_their_order():
    ids, answers = tasks.selective_copying(64, 80, generator())
    assert bool((ids[:, -COPIED:] == ASK).all())
    for row, answer in zip(ids[:, :-COPIED].tolist(), answers.tolist(), strict=True):
        assert [token for token in row if token != NOISE] == answer


def test_selective_copying_is_practised_on_few_tokens_and_many():
    draw = generator()
    found = [tasks.selective_copying_few_and_many(1, 64, draw)[1].shape[1] for _ in range(400)]
    assert set(found) == set(range(1, COPIED + 1))
    assert 0.15 < sum(count == COPIED for count in found) / 400 < 0.3


@pytest.mark.parametrize("mixer", train.MIXERS)
def test_pieces_answer_as_the_whole_does(mixer, monkeypatch):
    model = train.Tagger(mixer, 18, 16)
    ids = torch.randint(0, 18, (2, 40))
    whole = model(ids, 16)
    monkeypatch.setattr(train, "PIECE", 7)
    torch.testing.assert_close(model(ids, 16), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_mamba_learns_short_induction_heads_and_answers_on_longer_ones():
    task = dataclasses.replace(TASKS["induction"], length=64, lengths=(64, 256))
    found = train.train("mamba", task, dataclasses.replace(train.BUDGETS["induction"], steps=600, every=200))
    assert found["accuracy"]["anywhere"]["64"] > 0.99
    assert found["accuracy"]["anywhere"]["256"] > 0.9
