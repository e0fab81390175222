"""Orders are permutations that never change; batches resume exactly, on any number of ranks."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.sampler import ResumableBatchSampler, SequentialBatchSampler, hashes, order


def first(sampler: ResumableBatchSampler, count: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(sampler, count))


def test_orders_never_change() -> None:
    """The numbers of a plain loop over Python integers; a run that is resumed years later needs the same ones."""
    assert order(10, 0, 0).tolist() == [2, 4, 6, 8, 5, 1, 7, 0, 9, 3]
    assert order(10, 1, 0).tolist() == [7, 4, 8, 1, 2, 6, 5, 0, 9, 3]
    assert order(10, 0, 1).tolist() == [8, 1, 6, 9, 0, 2, 7, 5, 3, 4]
    assert [int(h) for h in hashes(7, 3, np.arange(2))] == [5123015643707495125, 18109886276499397889]


def test_orders_look_random() -> None:
    places = np.stack([order(50, epoch, 3) for epoch in range(2000)])
    counts = np.stack([np.bincount(places[:, i], minlength=50) for i in range(50)])
    chi_squared = ((counts - 40) ** 2 / 40).sum()
    assert abs(chi_squared - 49 * 49) < 5 * (2 * 49 * 49) ** 0.5
    assert abs(np.corrcoef(places[:-1, 0], places[1:, 0])[0, 1]) < 0.1


def test_large_order_is_a_permutation() -> None:
    found = np.bincount(order(3_000_000, 5, 2**63 + 1), minlength=3_000_000)
    assert (found == 1).all()


def test_every_window_once_an_epoch_across_batch_borders() -> None:
    batches = first(ResumableBatchSampler(10, 4, seed=1), 5)
    flat = [pair for batch in batches for pair in batch]
    assert [len(b) for b in batches] == [4] * 5
    assert Counter(flat) == Counter((epoch, index) for epoch in range(2) for index in range(10))
    assert [e for e, _ in batches[2]] == [0, 0, 1, 1]


def test_a_batch_larger_than_the_table() -> None:
    (batch,) = first(ResumableBatchSampler(3, 8, seed=1), 1)
    assert [e for e, _ in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_unshuffled() -> None:
    assert first(ResumableBatchSampler(3, 2, 0, shuffle=False), 2) == [[(0, 0), (0, 1)], [(0, 2), (1, 0)]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_order_of_one(world_size: int) -> None:
    alone = first(ResumableBatchSampler(11, 2, seed=5), 12)
    ranks = [first(ResumableBatchSampler(11, 2, 5, rank, world_size), 12 // world_size) for rank in range(world_size)]
    assert [batch for step in zip(*ranks, strict=True) for batch in step] == alone


@pytest.mark.parametrize("start", [0, 1, 5, 1000])
def test_starting_at_a_batch_is_going_on(start: int) -> None:
    whole = first(ResumableBatchSampler(7, 3, 2, 1, 2), start + 4)
    assert first(ResumableBatchSampler(7, 3, 2, 1, 2, start_batch=start), 4) == whole[start:]


def test_state_goes_on_with_another_batch_size_and_world() -> None:
    sampler = ResumableBatchSampler(10, 4, seed=3)
    flat = [p for b in first(ResumableBatchSampler(10, 1, seed=3), 30) for p in b]
    first(sampler, 3)
    other = ResumableBatchSampler(10, 2, seed=3, rank=1, world_size=2)
    other.load_state_dict(sampler.state_dict())
    assert first(other, 2) == [flat[14:16], flat[18:20]]
    assert sampler.state_dict(batches=2)["samples"] == 8


def test_iterating_again_goes_on() -> None:
    sampler = ResumableBatchSampler(10, 2, seed=3)
    assert first(sampler, 2) + first(sampler, 2) == first(ResumableBatchSampler(10, 2, seed=3), 4)


@pytest.mark.parametrize(("name", "value"), [("n", 11), ("seed", 4), ("shuffle", False)])
def test_state_of_another_order_is_refused(name: str, value: int) -> None:
    arguments = {"n": 10, "batch_size": 4, "seed": 3, "shuffle": True}
    state = ResumableBatchSampler(**arguments).state_dict()
    with pytest.raises(UserError, match=f"{name} differs"):
        ResumableBatchSampler(**{**arguments, name: value}).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"n": 0}, UserError),
        ({"batch_size": 0}, UserError),
        ({"rank": 2, "world_size": 2}, ValueError),
        ({"start_batch": -1}, ValueError),
    ],
)
def test_wrong_numbers(arguments: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        ResumableBatchSampler(**{"n": 5, "batch_size": 2, "seed": 0, **arguments})


@pytest.mark.parametrize(("n", "batch_size", "world_size"), [(10, 3, 1), (10, 3, 2), (1, 4, 3), (0, 2, 1), (12, 3, 2)])
def test_evaluation_sees_every_window_once(n: int, batch_size: int, world_size: int) -> None:
    samplers = [SequentialBatchSampler(n, batch_size, rank, world_size) for rank in range(world_size)]
    batches = [list(s) for s in samplers]
    assert [len(s) for s in samplers] == [len(b) for b in batches]
    assert sorted(p for rank in batches for b in rank for p in b) == [(0, i) for i in range(n)]
    with pytest.raises(UserError, match="batch size"):
        SequentialBatchSampler(5, 0)
