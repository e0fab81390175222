"""Who holds which part of a sequence, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_training.context_parallel import ContextPlace, replica
from mamba_training.settings import RunSettings


@pytest.mark.parametrize(("length", "size"), [(1, 1), (7, 2), (64, 3), (5, 5), (1000, 7)])
def test_parts_are_consecutive_and_even(length, size):
    parts = [ContextPlace(rank, size).part(length) for rank in range(size)]
    assert [token for part in parts for token in range(length)[part]] == list(range(length))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_neighbouring_ranks_are_one_replica():
    assert [replica(rank, 6, 2) for rank in range(6)] == [(0, 3), (0, 3), (1, 3), (1, 3), (2, 3), (2, 3)]
    assert replica(3, 4, 1) == (3, 4)


def test_a_module_must_know_of_parts(toy_run):
    with pytest.raises(UserError, match="cannot be split over 2 of 1 devices"):
        toy_run(context_parallel=2, devices=1, accelerator="cpu")
    with pytest.raises(UserError, match="context_parallel is too small"):
        RunSettings(out=Path("x"), max_steps=1, context_parallel=0)
