"""Whatever the table, batch, world and step: going on is the same as never having stopped, and nothing is dropped."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.sampler import ResumableBatchSampler, order


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(-(2**70), 2**70), st.integers(1, 4), st.integers(0, 30))
def test_resumed_is_uninterrupted(n: int, batch_size: int, seed: int, world: int, stop: int) -> None:
    for rank in range(world):
        whole = list(itertools.islice(ResumableBatchSampler(n, batch_size, seed, rank, world), stop + 3))
        stopped = ResumableBatchSampler(n, batch_size, seed, rank, world)
        before = list(itertools.islice(stopped, stop))
        resumed = ResumableBatchSampler(n, batch_size, seed, rank, world)
        resumed.load_state_dict(stopped.state_dict())
        by_number = ResumableBatchSampler(n, batch_size, seed, rank, world, start_batch=stop)
        after = list(itertools.islice(resumed, 3))
        assert before + after == whole
        assert after == list(itertools.islice(by_number, 3))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(0, 2**64), st.integers(1, 4))
def test_nothing_is_dropped_or_repeated(n: int, batch_size: int, seed: int, world: int) -> None:
    steps = -(-3 * n // (batch_size * world))
    samplers = [ResumableBatchSampler(n, batch_size, seed, rank, world) for rank in range(world)]
    taken = Counter(p for s in samplers for b in itertools.islice(s, steps) for p in b)
    assert all(taken[epoch, index] == 1 for epoch in range(3) for index in range(n))
    assert set(taken.values()) == {1}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 300), st.integers(0, 2**40), st.integers(-(2**70), 2**70))
def test_order_is_a_permutation(n: int, epoch: int, seed: int) -> None:
    assert sorted(order(n, epoch, seed).tolist()) == list(range(n))
