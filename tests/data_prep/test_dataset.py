"""Items hold the bases they should, padded, turned and mapped; loaders give the same for any number of workers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import PAD, reverse_complement
from mamba_data_prep.genomes.dataset import WindowDataset
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.loader import collate, make_loader
from mamba_data_prep.genomes.windows import tile
from mamba_data_prep.sampler import ResumableBatchSampler, SequentialBatchSampler


@pytest.fixture
def genome(tiny_genome: Path) -> Genome:
    return Genome.open(tiny_genome)


def test_items_are_the_bases_then_padding(genome: Genome) -> None:
    table = tile(genome, 700)
    dataset = WindowDataset(genome, table)
    assert len(dataset) == len(table)
    for i in range(len(table)):
        item = dataset[i]
        bases = genome.fetch(int(table.record[i]), int(table.start[i]), int(table.end[i]))
        assert (item.shape, item.dtype) == ((700,), np.uint8)
        assert np.array_equal(item[: len(bases)], bases)
        assert (item[len(bases) :] == PAD).all()
    assert (dataset[8][400:] == PAD).all()
    assert PAD not in b"ACGTN"


def test_turned_windows_are_the_other_strand_with_padding_at_the_end(genome: Genome) -> None:
    table = tile(genome, 700)
    plain, turning = WindowDataset(genome, table), WindowDataset(genome, table, reverse_complement=True, seed=4)
    indices = np.arange(len(table))
    for epoch in range(6):
        turned = turning.is_reversed(np.full(len(table), epoch), indices)
        for i in indices.tolist():
            length = int(table.end[i] - table.start[i])
            bases = plain[i][:length]
            expected = reverse_complement(bases) if turned[i] else bases
            assert np.array_equal(turning[epoch, i][:length], expected)
            assert (turning[epoch, i][length:] == PAD).all()


def test_half_of_the_windows_are_turned_and_others_every_epoch(genome: Genome) -> None:
    dataset = WindowDataset(genome, tile(genome, 700), reverse_complement=True, seed=1)
    turned = np.stack([dataset.is_reversed(np.full(4000, e), np.arange(4000)) for e in range(3)])
    assert np.abs(turned.mean(1) - 0.5).max() < 0.04
    assert abs((turned[0] == turned[1]).mean() - 0.5) < 0.04
    other = WindowDataset(genome, tile(genome, 700), reverse_complement=True, seed=2)
    assert abs((other.is_reversed(np.zeros(4000, int), np.arange(4000)) == turned[0]).mean() - 0.5) < 0.04


def test_transform_maps_every_byte(genome: Genome) -> None:
    table = np.zeros(256, dtype=np.uint8)
    table[list(b"ACGTN")] = [7, 8, 9, 10, 11]
    table[PAD] = 4
    windows = tile(genome, 700)
    plain, mapped = WindowDataset(genome, windows), WindowDataset(genome, windows, table)
    assert np.array_equal(mapped[8], table[plain[8]])
    assert set(np.unique(mapped[8])) == {4, 7, 8, 9, 10}
    with pytest.raises(ValueError, match=r"uint8 \(256,\)"):
        WindowDataset(genome, windows, table[:10])
    with pytest.raises(ValueError, match="int64"):
        WindowDataset(genome, windows, table.astype(np.int64))


def test_missing_window(genome: Genome) -> None:
    dataset = WindowDataset(genome, tile(genome, 700))
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(workers: int, genome: Genome) -> None:
    dataset = WindowDataset(genome, tile(genome, 700), reverse_complement=True, seed=3)

    def batches(count: int) -> list[torch.Tensor]:
        loader = make_loader(dataset, ResumableBatchSampler(len(dataset), 5, 3, start_batch=2), count)
        return list(itertools.islice(loader, 12))

    alone, several = batches(0), batches(workers)
    assert all((b.dtype, tuple(b.shape)) == (torch.uint8, (5, 700)) for b in alone)
    assert all(torch.equal(a, b) for a, b in zip(alone, several, strict=True))


def test_making_a_loader_leaves_the_random_numbers_alone(genome: Genome) -> None:
    dataset = WindowDataset(genome, tile(genome, 700))
    before = torch.get_rng_state()
    list(make_loader(dataset, SequentialBatchSampler(len(dataset), 4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_loader_ends(genome: Genome) -> None:
    dataset = WindowDataset(genome, tile(genome, 700))
    loader = make_loader(dataset, SequentialBatchSampler(len(dataset), 4))
    assert [len(b) for b in loader] == [4, 4, 4, 4, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reading_error_comes_through_as_it_is(workers: int, genome: Genome, tiny_genome: Path) -> None:
    dataset = WindowDataset(genome, tile(genome, 700))
    tiny_genome.write_text(">other\nACGT\n")
    with pytest.raises(UserError) as caught:
        next(iter(make_loader(dataset, SequentialBatchSampler(len(dataset), 4), workers)))
    assert caught.value.problem == "this file changed after it was opened"
    assert caught.value.path == tiny_genome


def test_collate_takes_single_windows_too() -> None:
    assert collate([np.zeros(3, np.uint8), np.ones(3, np.uint8)]).tolist() == [[0, 0, 0], [1, 1, 1]]
