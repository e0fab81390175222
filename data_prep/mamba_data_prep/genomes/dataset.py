"""A map from window numbers to bases, for PyTorch's loaders; needs no PyTorch itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mamba_data_prep.genomes.alphabet import PAD, reverse_complement, translate
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.windows import WindowTable
from mamba_data_prep.sampler import hashes

Key = int | tuple[int, int]
"""A window's number, or (epoch, number); the number alone means epoch 0."""

_STRAND_SALT = 0x5EED


class WindowDataset:
    """Windows as arrays of bytes, each exactly `windows.window` long.

    Bases are upper-case ASCII. Where a record or region ended, the rest is `alphabet.PAD` (0), which is no base:
    padding cannot be taken for N. A window that is turned to the other strand keeps its padding at its end.

    Args:
        genome: where the bases are read.
        windows: which bases.
        transform: a table of 256 bytes applied to every item, ASCII (and PAD) to token ids.
        reverse_complement: turn half of the windows to the other strand, another half every epoch; which ones depends
            on nothing but (seed, epoch, number).
        seed: of that choice.
    """

    def __init__(
        self,
        genome: Genome,
        windows: WindowTable,
        transform: np.ndarray | None = None,
        reverse_complement: bool = False,
        seed: int = 0,
    ) -> None:
        if transform is not None and (transform.shape != (256,) or transform.dtype != np.uint8):
            raise ValueError(f"transform must be uint8 (256,), not {transform.dtype} {transform.shape}")
        self.genome, self.windows, self.transform = genome, windows, transform
        self.reverse_complement, self.seed = reverse_complement, seed

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: Key) -> np.ndarray:
        """Gives one window, uint8 (window,)."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> np.ndarray:
        """Several windows at once, uint8 (len(keys), window); PyTorch's loaders ask for whole batches in this way.

        Raises:
            IndexError: there is no such window.
            UserError: the genome's file changed after it was opened.
        """
        pairs = np.array([(0, key) if isinstance(key, int | np.integer) else key for key in keys], dtype=np.int64)
        epochs, numbers = pairs.reshape(-1, 2).T
        turned = self.is_reversed(epochs, numbers).tolist()
        table = self.windows
        batch = np.full((len(keys), table.window), PAD, dtype=np.uint8)
        columns = (table.record[numbers].tolist(), table.start[numbers].tolist(), table.end[numbers].tolist())
        for row, turn, record, start, end in zip(batch, turned, *columns, strict=True):
            bases = self.genome.fetch(record, start, end)
            row[: end - start] = reverse_complement(bases) if turn else bases
        return batch if self.transform is None else translate(batch, self.transform.tobytes())

    def is_reversed(self, epochs: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Tells which windows are given as the other strand, bool (n,)."""
        if not self.reverse_complement:
            return np.zeros(len(numbers), dtype=bool)
        return (hashes(self.seed ^ _STRAND_SALT, epochs, numbers) >> np.uint64(63)).astype(bool)
