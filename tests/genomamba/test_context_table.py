"""The table of contexts says what counting by hand says, leaves a read window out, and is where a model starts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.config import CountsConfig, ModelConfig, TableShape
from genomamba.language_model.context_table import LONG_ORDER, NextBaseTable
from genomamba.language_model.counting import (
    LONG_LEAST,
    LONG_STRENGTH,
    OwnLeftOut,
    WindowCounts,
    count_windows,
    interpolated,
)
from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.model import GenomeLM, window_nats
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.windows import tile

COMPLEMENT = str.maketrans("ACGT", "TGCA")
WINDOW = 64


@pytest.fixture(scope="module")
def letters() -> str:
    """DNA with repeats, so that long contexts come back, and two unknown bases."""
    random = np.random.default_rng(5)
    unit = "".join(random.choice(list("ACGT"), 40))
    pieces = [unit if random.random() < 0.4 else "".join(random.choice(list("ACGT"), 30)) for _ in range(40)]
    text = list("".join(pieces)[: 18 * WINDOW])
    text[100] = text[101] = "N"
    return "".join(text)


@pytest.fixture(scope="module")
def windows(letters: str, tmp_path_factory: pytest.TempPathFactory) -> GenomeWindows:
    path: Path = tmp_path_factory.mktemp("genome") / "g.fa"
    path.write_text(f">one\n{letters}\n")
    genome = Genome.open(path)
    return GenomeWindows(genome, tile(genome, WINDOW))


@pytest.fixture(scope="module")
def counts(windows: GenomeWindows) -> WindowCounts:
    found = count_windows(CountsConfig(order=3, long_contexts=50), windows, windows)
    assert found is not None
    return found


def filled(counts: WindowCounts) -> NextBaseTable:
    table = NextBaseTable(counts.shape, 8)
    counts.fill(table)
    return table


def words(windows: list[str], order: int) -> Counter[str]:
    """Every word of `order` + 1 bases in windows, on both strands, by reading them."""
    found: Counter[str] = Counter()
    for window in windows:
        for strand in (window, window.translate(COMPLEMENT)[::-1]):
            pieces = (strand[at : at + order + 1] for at in range(len(strand) - order))
            found.update(piece for piece in pieces if "N" not in piece)
    return found


def cut(letters: str) -> list[str]:
    return [letters[at : at + WINDOW] for at in range(0, len(letters), WINDOW)]


def distribution(counted: dict[int, Counter[str]], context: str, strength: float) -> np.ndarray:
    mixed = np.full(4, 0.25)
    for order in range(len(context) + 1):
        seen = np.array([counted[order][context[len(context) - order :] + base] for base in "ACGT"])
        mixed = (seen + strength * mixed) / (seen.sum() + strength)
    return mixed


def test_distributions_are_those_of_counting_by_hand(counts: WindowCounts, letters: str) -> None:
    counted = {order: words(cut(letters), order) for order in range(4)}
    short = interpolated(counts.tables, counts.strength)
    for order in range(4):
        for row, context in enumerate(itertools.product("ACGT", repeat=order)):
            assert np.allclose(short[order][row], distribution(counted, "".join(context), counts.strength))


def test_long_contexts_and_their_counts_are_those_of_counting_by_hand(counts: WindowCounts, letters: str) -> None:
    counted = words(cut(letters), LONG_ORDER)
    assert 0 < counts.shape.long_contexts <= 50
    for key, seen in zip(counts.long_keys, counts.long_counts, strict=True):
        context = "".join("ACGT"[(int(key) >> 2 * place) & 3] for place in reversed(range(LONG_ORDER)))
        assert [counted[context + base] for base in "ACGT"] == seen.tolist()
        assert seen.sum() >= 3
    assert (np.diff(counts.long_keys) > 0).all()


def test_the_contexts_held_are_those_that_save_most(windows: GenomeWindows) -> None:
    many = count_windows(CountsConfig(order=3, long_contexts=1000), windows, windows)
    few = count_windows(CountsConfig(order=3, long_contexts=5), windows, windows)
    assert many is not None
    assert few is not None
    short = interpolated(many.tables, many.strength)[-1][many.long_keys & 63]
    left = (np.maximum(many.long_counts - 1, 0) + LONG_STRENGTH * short) / (
        many.long_counts.sum(1, keepdims=True) - 1 + LONG_STRENGTH
    )
    saved = (many.long_counts * np.log2(left / short)).sum(1)
    assert set(few.long_keys) == set(many.long_keys[np.argsort(-saved, kind="stable")[:5]])
    assert len(many.long_keys) > 5


def test_codewords_stand_close_to_the_distributions(counts: WindowCounts) -> None:
    table = filled(counts)
    short = interpolated(counts.tables, counts.strength)
    expected = np.concatenate([short[order] for order in counts.shape.held_orders])
    found = table.codebook[table.codes.long()].exp().numpy()
    assert np.allclose(found.sum(axis=1), 1)
    assert np.abs(found - expected).max() < 0.01  # 85 contexts and 256 codewords: none need be shared


def test_looking_up_finds_the_longest_context_that_is_held(counts: WindowCounts, letters: str) -> None:
    table = filled(counts)
    ids = torch.from_numpy(tokens.encode(letters[:200]))[None]
    counted = table.counted(table.lookup(ids))
    short = interpolated(counts.tables, counts.strength)
    keys = {int(key): place for place, key in enumerate(counts.long_keys)}
    for place in range(200):
        known = letters[: place + 1].rsplit("N", 1)[-1]
        context = known[-3:]
        row = sum("ACGT".index(base) << 2 * (len(context) - 1 - at) for at, base in enumerate(context))
        assert np.allclose(counted.short[0, place].exp(), short[len(context)][row], atol=0.01)
        long = known[-LONG_ORDER:]
        key = sum("ACGT".index(base) << 2 * (LONG_ORDER - 1 - at) for at, base in enumerate(long))
        assert bool(counted.found[0, place]) == (len(long) == LONG_ORDER and key in keys)
    assert counted.found.any()


def test_training_windows_are_looked_up_without_their_own_words(counts: WindowCounts, letters: str) -> None:
    table = filled(counts)
    parts = cut(letters)
    ids = torch.from_numpy(np.stack([tokens.encode(part) for part in parts]))
    left_out = OwnLeftOut(counts, table)
    codes = left_out(ids, ids)
    found = table.counted(codes)
    for number in (0, 1, 7):
        others = parts[:number] + parts[number + 1 :]
        counted = {order: words(others, order) for order in range(4)}
        long = words(others, LONG_ORDER)
        for place in range(WINDOW):
            known = parts[number][: place + 1].rsplit("N", 1)[-1]
            expected = distribution(counted, known[-3:], counts.strength)
            nearest = table.codebook.exp().sqrt().numpy() - np.sqrt(expected)
            assert int(codes.short[number, place]) == int((nearest**2).sum(1).argmin())
            context = known[-LONG_ORDER:]
            seen = np.array([long[context + base] for base in "ACGT"])
            if found.found[number, place]:
                assert seen.sum() >= LONG_LEAST
    again = left_out(ids, ids)  # the counts are as they were
    assert all(torch.equal(one, other) for one, other in zip(codes, again, strict=True))


def test_a_repeat_that_no_other_window_has_is_not_foretold(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    unit = "".join(random.choice(list("ACGT"), 21))
    rest = "".join(random.choice(list("ACGT"), 30 * WINDOW))
    (tmp_path / "g.fa").write_text(f">one\n{(unit * 4)[:WINDOW]}{rest}\n")
    genome = Genome.open(tmp_path / "g.fa")
    windows = GenomeWindows(genome, tile(genome, WINDOW))
    counts = count_windows(CountsConfig(order=2, long_contexts=100), windows, windows)
    assert counts is not None
    assert counts.shape.long_contexts
    table = filled(counts)
    ids = torch.from_numpy(next(windows.blocks())[:1].copy())
    assert (table.lookup(ids).long >= 0).any()
    assert (OwnLeftOut(counts, table)(ids, ids).long < 0).all()


def test_a_model_starts_from_its_table(counts: WindowCounts, windows: GenomeWindows) -> None:
    model = GenomeLM(ModelConfig(d_model=16, n_layers=1), counts.shape)
    assert model.table is not None
    counts.fill(model.table)
    ids = torch.from_numpy(next(windows.blocks()).copy())
    alone, _ = window_nats(model.counts_alone(ids), ids)
    whole, _ = window_nats(model(ids), ids)
    assert torch.allclose(alone, whole, atol=1e-4)
    probabilities = model.counts_alone(ids).softmax(-1)
    assert torch.allclose(probabilities[..., 7:11].sum(-1), torch.ones(ids.shape), atol=1e-5)


def test_codes_of_a_part_are_the_part_of_the_codes(counts: WindowCounts, windows: GenomeWindows) -> None:
    model = GenomeLM(ModelConfig(d_model=16, n_layers=1), counts.shape)
    assert model.table is not None
    counts.fill(model.table)
    ids = torch.from_numpy(next(windows.blocks()).copy())
    codes = model.table.lookup(ids)
    whole = model.table.features(model.table.counted(codes))
    part = model.table.features(model.table.counted(codes.part(slice(20, 50))))
    assert torch.equal(whole[:, 20:50], part)


def test_what_was_told_is_what_the_base_gained(counts: WindowCounts, windows: GenomeWindows) -> None:
    table = filled(counts)
    ids = torch.from_numpy(next(windows.blocks()).copy())
    codes = table.lookup(ids)
    counted = table.counted(codes)
    assert float(codes.told[:, 0].abs().max()) == 0
    place = 9
    base = int(ids[3, place]) - tokens.FIRST_BASE
    assert math.isclose(
        float(codes.told[3, place]), float(counted.best[3, place - 1, base]) + math.log(4), rel_tol=1e-5
    )
    assert float(codes.told[ids == tokens.N].abs().max()) == 0


def test_no_counts_where_none_are_asked_for(windows: GenomeWindows) -> None:
    assert count_windows(None, windows, windows) is None
    plain = count_windows(CountsConfig(order=2, long_contexts=0), windows, windows)
    assert plain is not None
    assert plain.shape == TableShape(order=2, long_contexts=0)
    ids = torch.from_numpy(next(windows.blocks()).copy())
    assert (filled(plain).lookup(ids).long < 0).all()


def test_a_table_skips_orders_between_eight_and_its_own() -> None:
    shape = TableShape(order=11, long_contexts=0)
    assert shape.held_orders == [*range(9), 11]
    assert shape.size == sum(4**order for order in range(9)) + 4**11
