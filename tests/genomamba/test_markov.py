"""The baseline against a slow, plain count, and against sources whose entropy is known."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba import tokens
from genomamba.language_model.card import _verdict
from genomamba.language_model.markov import MarkovCounts, score
from genomamba.language_model.markov_of_run import affordable_order
from genomamba.language_model.scoring import bits_saved

windows = st.integers(1, 30).flatmap(
    lambda length: st.lists(st.text(alphabet="ACGTN\x00", min_size=length, max_size=length), min_size=1, max_size=4)
)


def ids_of(texts: list[str]) -> np.ndarray:
    return np.stack([tokens.encode(text) for text in texts])


def context_of(text: str, position: int, order: int) -> str:
    context = text[max(0, position - order) : position]
    return context[max(context.rfind(letter) for letter in "N\x00") + 1 :]


def plain_bits(train: list[str], test: list[str], order: int, strength: float) -> tuple[float, int]:
    """The definition, one base at a time."""
    seen: Counter[str] = Counter()
    for text in train:
        for position, base in enumerate(text):
            if base in "ACGT":
                context = context_of(text, position, order)
                seen.update(context[cut:] + base for cut in range(len(context) + 1))
    total, n = 0.0, 0
    for text in test:
        for position, base in enumerate(text):
            if base not in "ACGT" or position == 0:
                continue
            context, probability = context_of(text, position, order), 0.25
            for length in range(len(context) + 1):
                ending = context[len(context) - length :]
                after = sum(seen[ending + other] for other in "ACGT")
                probability = (seen[ending + base] + strength * probability) / (after + strength)
            total -= math.log2(probability)
            n += 1
    return total / max(n, 1), n


@settings(deadline=None, max_examples=40)
@given(windows, windows, st.integers(0, 4), st.sampled_from([0.5, 2.0, 20.0]))
def test_equals_the_plain_definition(train: list[str], test: list[str], order: int, strength: float) -> None:
    counts = MarkovCounts(max_order=4)
    counts.add(ids_of(train))
    found = score(counts.tables(), ids_of(test), (strength,))
    expected, n = plain_bits(train, test, order, strength)
    assert found.n_targets == n
    if n:
        assert found.at(order, strength) == pytest.approx(expected, abs=1e-9)


def test_tables_count_every_context() -> None:
    counts = MarkovCounts(max_order=2)
    counts.add(ids_of(["ACGNACA"]))
    order0, order1, order2 = counts.tables()
    assert counts.n_bases == 6
    assert order0.tolist() == [[3, 2, 1, 0]]
    assert order1[0].tolist() == [0, 2, 0, 0]
    assert order1[1].tolist() == [1, 0, 1, 0]
    assert order2.sum() == 2
    assert order2[0b0001].tolist() == [1, 0, 1, 0]


def test_adding_in_parts_is_adding_at_once() -> None:
    ids = np.random.default_rng(0).integers(7, 11, (6, 500)).astype(np.uint8)
    whole, parts = MarkovCounts(5), MarkovCounts(5)
    whole.add(ids)
    for row in ids:
        parts.add(row[None])
    assert all(np.array_equal(one, other) for one, other in zip(whole.tables(), parts.tables(), strict=True))


def test_random_bases_cost_two_bits_at_best() -> None:
    ids = np.random.default_rng(1).integers(7, 11, (40, 2000)).astype(np.uint8)
    counts = MarkovCounts(8)
    counts.add(ids[:30])
    found = score(counts.tables(), ids[30:])
    assert found.best[2] == pytest.approx(2.0, abs=2e-3)
    assert found.at(8, 1.0) > 2.2


def test_the_order_of_a_source_is_found() -> None:
    rng = np.random.default_rng(2)
    following = rng.dirichlet([0.4] * 4, size=16)
    bases = [0, 1]
    for uniform in rng.random(60_000):
        row = following[4 * bases[-2] + bases[-1]]
        bases.append(min(3, int(np.searchsorted(row.cumsum(), uniform))))
    ids = (np.array(bases[:60_000], dtype=np.uint8) + tokens.FIRST_BASE).reshape(60, 1000)
    counts = MarkovCounts(6)
    counts.add(ids[:50])
    found = score(counts.tables(), ids[50:])
    source = -np.mean([np.log2(following[4 * a + b, c]) for a, b, c in zip(bases, bases[1:], bases[2:], strict=False)])
    assert found.by_order()[1][2] > source + 0.1
    assert found.best[2] == pytest.approx(source, abs=0.02)


def test_nothing_to_score_is_not_a_number() -> None:
    found = score(MarkovCounts(1).tables(), ids_of(["NNNN", "ANNN"]))
    assert found.n_targets == 0
    assert np.isnan(found.bits).all()


def test_orders_that_no_table_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_order=15 is outside 0 \.\. 14"):
        MarkovCounts(15)


@settings(deadline=None, max_examples=30)
@given(windows, st.integers(0, 4))
def test_both_strands_count_as_if_the_other_were_read_too(texts: list[str], order: int) -> None:
    together, apart = MarkovCounts(order), MarkovCounts(order)
    together.add(ids_of(texts), both_strands=True)
    apart.add(ids_of(texts))
    apart.add(ids_of([text[::-1].translate(str.maketrans("ACGT", "TGCA")) for text in texts]))
    assert together.n_bases == apart.n_bases
    for found, expected in zip(together.tables(), apart.tables(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_order_follows_the_bases_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 << 30))
    assert [affordable_order(bases) for bases in (0, 16, 17, 10**6, 10**8, 10**10)] == [1, 2, 3, 10, 14, 14]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 << 30))
    assert affordable_order(10**10) == 12


def test_bits_saved_and_their_error_are_those_of_the_windows() -> None:
    rng = np.random.default_rng(0)
    n_bases = rng.integers(50, 100, 400)
    theirs = n_bases * rng.normal(1.3, 0.1, 400)
    ours = theirs - n_bases * math.log(2) * rng.normal(0.05, 0.02, 400)
    saved, error = bits_saved(ours, theirs, n_bases)
    assert saved == pytest.approx(0.05, abs=4 * 0.02 / 20)
    assert error == pytest.approx(0.02 / 20, rel=0.15)
    assert bits_saved(theirs, ours, n_bases)[0] == pytest.approx(-saved)
    assert bits_saved(ours[:1], theirs[:1], n_bases[:1])[1] is None


def test_a_single_window_is_said_to_tell_nothing_of_the_error() -> None:
    judge = {"saved_bits": 0.0123, "saved_bits_error": None}
    assert _verdict(judge, "counts") == "0.0123 bits per base better on test than counts, on a single window"
    assert "+- 0.0100 bits" in _verdict({**judge, "saved_bits_error": 0.01}, "counts")


def test_a_model_that_says_what_its_counts_say_is_neither_better_nor_worse() -> None:
    judge = {"saved_bits": -1e-6, "saved_bits_error": 2e-6}
    assert _verdict(judge, "counts") == "no different on test from counts, to the fourth decimal of a bit per base"
