"""Windows of a genome as batches of token ids: the split, frozen evaluation windows, the endless training loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from genomamba import tokens
from genomamba.config import DataConfig
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.dataset import WindowDataset
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import read_bed
from mamba_data_prep.genomes.loader import make_loader
from mamba_data_prep.genomes.splits import Split, names_splits, split_by_bed, split_by_block
from mamba_data_prep.genomes.windows import WindowTable
from mamba_data_prep.sampler import ResumableBatchSampler, SequentialBatchSampler
from mamba_training.context_parallel import replica


def open_genome(path: str | Path | None) -> Genome:
    """Opens a genome.

    Raises:
        UserError: no path was given, or the file is not DNA in FASTA.
    """
    if path is None:
        raise UserError("no genome is given", accepted="--fasta FILE, or fasta: FILE in the configuration")
    return Genome.open(path)


def make_split(genome: Genome, config: DataConfig, bed: str | Path | None = None) -> Split:
    """Training, validation and test windows that share no base.

    By default blocks of the whole genome are dealt to the three. A BED file keeps to its regions; where its fourth
    column says train, valid or test, that is the split; with `config.beyond_regions`, training regions shorter than a
    window have two windows each, which reach over bases of no other split.

    Raises:
        UserError: the genome or the regions have too few windows of this length, or the BED file cannot be read.
    """
    intervals = None if bed is None else read_bed(bed, genome)
    if intervals is not None and names_splits(intervals):
        beyond = config.beyond_regions
        return split_by_bed(genome, intervals, config.window, max_n_fraction=config.max_n_fraction, beyond=beyond)
    return split_by_block(
        genome, config.window, seed=config.split_seed, regions=intervals, max_n_fraction=config.max_n_fraction
    )


def frozen(windows: WindowTable, n_bases: int) -> WindowTable:
    """About `n_bases` of the windows, spread evenly over all of them: the same ones in every run."""
    n = min(len(windows), max(1, -(-n_bases // windows.window)))
    return windows.select(np.linspace(0, len(windows) - 1, n).round().astype(np.int64))


class GenomeWindows:
    """Token ids of a table of windows.

    Args:
        genome: where the bases are read.
        windows: which bases.
        reverse_complement: turn half of the windows to the other strand, other ones in each epoch.
        seed: of that choice.
    """

    def __init__(
        self, genome: Genome, windows: WindowTable, *, reverse_complement: bool = False, seed: int = 0
    ) -> None:
        self.dataset = WindowDataset(genome, windows, tokens.ENCODE, reverse_complement, seed)
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def blocks(self, n_bases: int = 1 << 20) -> Iterator[UInt8[np.ndarray, "windows length"]]:
        """All windows in their order, some of about `n_bases` at a time."""
        rows = max(1, n_bases // self.windows.window)
        for start in range(0, len(self), rows):
            yield self.dataset.__getitems__(range(start, min(start + rows, len(self))))


class GenomeData(LightningDataModule):
    """Training batches without end, and the frozen validation windows once.

    Args:
        genome: where the bases are read.
        split: which windows are for what; those for training may be shorter, with as many more in a batch.
        config: window, augmentation, validation and workers.
        batch_size: windows for validation of a batch, on one device.
        seed: of the order and the strands.
        context_parallel: neighbouring ranks that share every window, and so read the same ones.
    """

    start_batch: int = 0
    """Batches that each device has already had; set before `train_dataloader` on resuming."""

    def __init__(
        self, genome: Genome, split: Split, config: DataConfig, *, batch_size: int, seed: int, context_parallel: int = 1
    ) -> None:
        super().__init__()
        self.context_parallel = context_parallel
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.train = GenomeWindows(genome, split.train, reverse_complement=config.reverse_complement, seed=seed)
        self.valid = GenomeWindows(genome, frozen(split.valid, config.valid_bases))

    def train_dataloader(self) -> DataLoader:
        """Uint8 ids (batch, window), in an order that depends on the seed alone, from `start_batch` on."""
        rank, world_size = self._place()
        rows = self.batch_size * self.valid.windows.window // self.train.windows.window
        sampler = ResumableBatchSampler(
            len(self.train), rows, self.seed, rank, world_size, start_batch=self.start_batch
        )
        return make_loader(self.train.dataset, sampler, self.config.workers, pin_memory=self._pins())

    def val_dataloader(self) -> DataLoader:
        """Uint8 ids (batch, window) of the frozen windows."""
        rank, world_size = self._place()
        sampler = SequentialBatchSampler(len(self.valid), self.batch_size, rank, world_size)
        return make_loader(self.valid.dataset, sampler, pin_memory=self._pins())

    def _place(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return replica(self.trainer.global_rank, self.trainer.world_size, self.context_parallel)

    def _pins(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
