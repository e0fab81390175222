"""Orders of windows that depend on nothing but (n, seed, epoch): any step can be resumed, with any number of workers.

No random generator is kept or advanced. A window's place is the rank of its hash, so nothing has to be replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mamba_data_prep.errors import UserError

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(values: np.ndarray) -> np.ndarray:
    """Scrambles uint64 values one to one (the finaliser of SplitMix64; Steele, Lea and Flood 2014, section 3)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def hashes(seed: int, epoch: np.ndarray | int, index: np.ndarray) -> np.ndarray:
    """Gives a uint64 for each (epoch, index) under this seed; in one epoch, different indices have different ones."""
    with np.errstate(over="ignore"):  # one-element arrays: numpy's operators turn arrays of no dimension into scalars
        key = mix(np.atleast_1d(epoch).astype(np.uint64) + mix(np.array([seed & _MASK], dtype=np.uint64)))
        return mix(key + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def order(n: int, epoch: int, seed: int) -> np.ndarray:
    """Gives the permutation of 0..n-1 that belongs to an epoch, int64 (n,); the same on every machine."""
    return np.argsort(hashes(seed, epoch, np.arange(n, dtype=np.uint64)))


class ResumableBatchSampler:
    """Batches of (epoch, index), without end, the same for any number of workers.

    The epochs' orders are laid end to end and cut into batches, so a batch may hold the end of one epoch and the
    beginning of the next, and no window is ever dropped. With several ranks, every `world_size` consecutive batches go
    to ranks 0, 1, ...

    Args:
        n: windows in the table.
        batch_size: windows in a batch, on one rank.
        seed: decides the order.
        rank: this process's number.
        world_size: processes in all.
        start_batch: batches that each rank has already had.
        shuffle: a new order every epoch, or the table's own.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        shuffle: bool = True,
    ) -> None:
        if n < 1:
            raise UserError("there is no window to draw from", found=n, fix="use shorter windows or a longer genome")
        if batch_size < 1:
            raise UserError("the batch size must be at least 1", found=batch_size)
        if not 0 <= rank < world_size or start_batch < 0:
            raise ValueError(f"rank {rank} of {world_size}, start_batch {start_batch}")
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self._first_sample = start_batch * batch_size * world_size
        self._batches = 0
        self._order = (-1, np.zeros(0, dtype=np.int64))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        while True:
            batch = self.batch(self._batches)
            self._batches += 1
            yield batch

    def batch(self, number: int) -> list[tuple[int, int]]:
        """Gives the (epoch, index) pairs of this rank's batch, counted from where the sampler started."""
        first = self._first_sample + (number * self.world_size + self.rank) * self.batch_size
        pairs = []
        while len(pairs) < self.batch_size:
            epoch, place = divmod(first + len(pairs), self.n)
            taken = self._epoch(epoch)[place : place + self.batch_size - len(pairs)]
            pairs += [(epoch, index) for index in taken.tolist()]
        return pairs

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Tells where the sampler stands, as plain numbers.

        Args:
            batches: batches that were used since it started; by default those it gave out, which with a loader that
                reads ahead are more.
        """
        given = self._batches if batches is None else batches
        samples = self._first_sample + given * self.batch_size * self.world_size
        return {"n": self.n, "seed": self.seed, "shuffle": self.shuffle, "samples": samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where that state stood; batch size and world size may differ.

        Raises:
            UserError: the state belongs to another table, seed or order.
        """
        for name in ("n", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise UserError(
                    f"the run cannot go on with a different order of windows: {name} differs",
                    found=getattr(self, name),
                    accepted=repr(state[name]),
                    fix="resume with the data, window and seed that the run was started with",
                )
        self._first_sample, self._batches = int(state["samples"]), 0

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = (epoch, order(self.n, epoch, self.seed) if self.shuffle else np.arange(self.n))
        return self._order[1]


class SequentialBatchSampler:
    """Every window once, in the table's order, as (0, index): for evaluation. The last batch may be smaller.

    With several ranks, batch number b goes to rank b % world_size.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise UserError("the batch size must be at least 1", found=batch_size)
        self.n, self.batch_size, self.rank, self.world_size = n, batch_size, rank, world_size

    def __len__(self) -> int:
        batches = -(-self.n // self.batch_size)
        return len(range(self.rank, batches, self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.batch_size * self.world_size
        for first in range(self.rank * self.batch_size, self.n, step):
            yield [(0, index) for index in range(first, min(first + self.batch_size, self.n))]
