"""Counts that foretell hidden bases from both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.config import CountsConfig, ModelConfig, ObjectiveConfig, TableShape
from genomamba.language_model.context_table import NextBaseTable
from genomamba.language_model.counting import OwnLeftOut, WindowCounts, count_windows
from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.sided_table import SidedTable, context_table
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.windows import tile

MASKED = ObjectiveConfig(kind="masked")
EQUIVARIANT = ModelConfig(d_model=16, n_layers=1, bidirectional="add", reverse_complement="equivariant")
PLAIN = ModelConfig(d_model=16, n_layers=1, bidirectional="add")
COMPLEMENT = torch.from_numpy(tokens.COMPLEMENT)
A, T = tokens.FIRST_BASE, tokens.FIRST_BASE + 4


def other_strand(ids: torch.Tensor) -> torch.Tensor:
    return COMPLEMENT[ids.flip(1).long()]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> GenomeWindows:
    random = np.random.default_rng(1)
    unit = "".join(random.choice(list("ACGT"), 40))
    pieces = [unit if random.random() < 0.4 else "".join(random.choice(list("AACGTTT"), 30)) for _ in range(60)]
    path: Path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">one\n{''.join(pieces)[: 24 * 64]}\n")
    genome = Genome.open(path)
    return GenomeWindows(genome, tile(genome, 64))


@pytest.fixture(scope="module")
def counts(windows: GenomeWindows) -> WindowCounts:
    found = count_windows(CountsConfig(order=3, long_contexts=50), windows, windows)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def ids(windows: GenomeWindows) -> torch.Tensor:
    """Windows with hidden bases."""
    found = torch.from_numpy(next(windows.blocks())[:6].copy())
    hidden = torch.rand(found.shape, generator=torch.Generator().manual_seed(0)) < 0.15
    return torch.where(hidden, tokens.MASK, found).to(torch.uint8)


def model(config: ModelConfig, counts: WindowCounts, *, weights: bool) -> GenomeLM:
    torch.manual_seed(0)
    made = GenomeLM(config, counts.shape, MASKED)
    assert isinstance(made.table, SidedTable)
    counts.fill(made.table)
    if weights:
        for name, values in made.named_parameters():
            if name.startswith(("table.weights", "lm_head")):
                torch.nn.init.normal_(values, std=0.3)
    return made


@pytest.mark.parametrize("config", [EQUIVARIANT, PLAIN])
def test_a_model_starts_from_what_both_sides_say(config: ModelConfig, counts: WindowCounts, ids: torch.Tensor) -> None:
    made = model(config, counts, weights=False)
    one_way = NextBaseTable(counts.shape, 8)
    counts.fill(one_way)
    before = one_way.counted(one_way.lookup(ids)).best
    after = one_way.counted(one_way.lookup(other_strand(ids))).best
    nothing = one_way.codebook[one_way.codes[0].long()]
    with torch.no_grad():
        logits = made(ids)
    for row in range(2):
        for place in range(ids.shape[1]):
            left = before[row, place - 1] if place else nothing
            right = after[row, -place - 2] if place < ids.shape[1] - 1 else nothing
            expected = left + right.flip(0) - (nothing + nothing.flip(0)) / 2
            assert torch.allclose(logits[row, place, A:T].softmax(0), expected.softmax(0), atol=1e-5)
    assert torch.allclose(logits, made.counts_alone(ids), atol=1e-4)


def test_an_equivariant_model_stays_one(counts: WindowCounts, ids: torch.Tensor) -> None:
    made = model(EQUIVARIANT, counts, weights=True).train()
    with torch.no_grad():
        given, other = made(ids), made(other_strand(ids))
    assert torch.allclose(other.flip(1)[..., COMPLEMENT.long()], given, atol=1e-5)
    plain = model(PLAIN, counts, weights=True)
    with torch.no_grad():
        assert not torch.allclose(plain(other_strand(ids)).flip(1)[..., COMPLEMENT.long()], plain(ids), atol=1e-2)


def test_each_side_has_weights_and_inputs_of_its_own(counts: WindowCounts, ids: torch.Tensor) -> None:
    made = model(EQUIVARIANT, counts, weights=True)
    table = made.table
    assert table is not None
    counted = table.counted(table.lookup(ids))
    swapped = counted._replace(left=counted.right, right=counted.left)
    hidden = torch.randn(*ids.shape, 16)
    assert not torch.allclose(table.share(hidden, counted), table.share(hidden, swapped), atol=1e-2)
    assert torch.allclose(table.share(hidden, counted), table.share(hidden.flip(2), swapped).flip(2), atol=1e-5)
    assert torch.allclose(table.features(counted), table.features(swapped).flip(2), atol=1e-6)
    assert not torch.allclose(table.features(counted), table.features(swapped), atol=1e-3)


def test_hidden_windows_are_looked_up_without_their_own_words(
    counts: WindowCounts, windows: GenomeWindows, ids: torch.Tensor
) -> None:
    made = model(EQUIVARIANT, counts, weights=False)
    table = made.table
    assert table is not None
    whole = torch.from_numpy(next(windows.blocks())[:6].copy())
    without = OwnLeftOut(counts, table)
    codes = without(whole, ids)
    assert not torch.equal(codes.left.short, table.lookup(ids).left.short)
    one_way = NextBaseTable(counts.shape, 8)
    counts.fill(one_way)
    expected = OwnLeftOut(counts, one_way)(whole, ids)
    assert torch.equal(codes.left.short[:, 1:], expected.short[:, :-1])
    flipped = without(other_strand(whole), other_strand(ids))
    assert torch.equal(flipped.left.short.flip(1), codes.right.short)
    assert torch.equal(flipped.right.long.flip(1), codes.left.long)


def test_codes_of_a_part_are_the_part_of_the_codes(counts: WindowCounts, ids: torch.Tensor) -> None:
    table = model(PLAIN, counts, weights=True).table
    assert table is not None
    codes = table.lookup(ids)
    whole = table.features(table.counted(codes))
    part = table.features(table.counted(codes.part(slice(20, 50))))
    assert torch.allclose(part, whole[:, 20:50], atol=1e-6)


def test_only_a_network_that_looks_both_ways_is_told_from_both_sides() -> None:
    shape = TableShape(order=2, long_contexts=0)
    assert isinstance(context_table(shape, ModelConfig()), NextBaseTable)
    assert isinstance(context_table(shape, EQUIVARIANT), SidedTable)
    assert isinstance(context_table(shape, PLAIN), SidedTable)
