"""What counting has learnt, as a part of the network: a table of contexts, small enough to lie in the bundle.

A network of a million weights cannot remember which base follows each of four million contexts, and a table can; a
table cannot look further back than its contexts, and a network can. So the network starts from the table:

    logits(t) = network(t) + (1 + a(t)) log p(t) + b(t) log p_short(t),

where p_short is the distribution after the last `order` bases, p that after the last `LONG_ORDER` where the table holds
these (else p_short), and a and b come from the hidden vector, zero before training. The same distributions are an input
of the network, which therefore sees where counting has been right so far.

Each distribution is one byte, the number of its codeword among 256. Which contexts are held, and how they were counted,
is `genomamba.language_model.counting`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int32, Int64, Integer
from torch import Tensor, nn

from genomamba import tokens
from genomamba.config import TableShape

LONG_ORDER: Final = 16
"""Bases of the long contexts; their number in base four fits 32 bits."""
CODEWORDS: Final = 256
_OFFSET: Final = 2**31
FEATURES: Final = 10
"""Numbers that the network reads beside each base, see `plain_features`."""
_EVEN: Final = -math.log(4)


class Codes(NamedTuple):
    """The codewords at each position, of what follows the base there.

    Attributes:
        short: (B, L) int64, after the longest context that is always held.
        long: (B, L) int64, after `LONG_ORDER` bases; -1 where that context is not held.
        told: (B, L) what the base itself gained over chance from the position before, nats; 0 where none was told.
    """

    short: Int64[Tensor, "B L"]
    long: Int64[Tensor, "B L"]
    told: Float[Tensor, "B L"]

    def part(self, place: slice) -> Codes:
        """The codes of some positions."""
        return Codes(*(values[:, place] for values in self))


Finder = Callable[[Integer[Tensor, "B L"]], tuple[Int64[Tensor, "B L"], Int64[Tensor, "B L"]]]
"""Gives the short and the long codewords at each position of sequences."""


class Counted(NamedTuple):
    """What the table says about the base that follows each position, in nats.

    Attributes:
        best: (B, L, 4) log-probabilities of A, C, G and T after the longest context that is held.
        short: the same after at most `order` bases.
        found: (B, L) whether a long context is held.
        told: as in `Codes`.
    """

    best: Float[Tensor, "B L 4"]
    short: Float[Tensor, "B L 4"]
    found: Bool[Tensor, "B L"]
    told: Float[Tensor, "B L"]


CodesT = TypeVar("CodesT")
CountedT = TypeVar("CountedT")


class ContextTable(nn.Module, Generic[CodesT, CountedT]):
    """The table, and how it is bound to a network; `NextBaseTable` and `SidedTable` say of which base it tells.

    Args:
        shape: which contexts are held; their numbers are set by `fill` or read from a bundle.
    """

    codes: Tensor
    codebook: Tensor
    long_keys: Tensor
    long_codes: Tensor
    long_codebook: Tensor

    def __init__(self, shape: TableShape) -> None:
        super().__init__()
        self.shape = shape
        uniform = torch.full((CODEWORDS, 4), 0.25).log()
        self.register_buffer("codes", torch.zeros(shape.size, dtype=torch.uint8))
        self.register_buffer("codebook", uniform)
        self.register_buffer("long_keys", torch.zeros(shape.long_contexts, dtype=torch.int32))
        self.register_buffer("long_codes", torch.zeros(shape.long_contexts, dtype=torch.uint8))
        self.register_buffer("long_codebook", uniform.clone())

    def lookup(self, ids: Integer[Tensor, "B L"], find: Finder | None = None) -> CodesT:
        """The codewords at each position of sequences; contexts begin anew after every token that is no base.

        Args:
            ids: token ids.
            find: finds codewords, such as those without a training window's own counts; by default the table's own.
        """
        raise NotImplementedError

    def counted(self, codes: CodesT) -> CountedT:
        """What the codewords stand for."""
        raise NotImplementedError

    def alone(self, counted: CountedT) -> Float[Tensor, "B L 4"]:
        """Logits of A, C, G and T without the network."""
        raise NotImplementedError

    def features(self, counted: CountedT) -> Float[Tensor, "B L D"]:
        """What the network reads beside each base: the distributions, and how well they had foretold that base."""
        raise NotImplementedError

    def share(self, hidden: Float[Tensor, "B L D"], counted: CountedT) -> Float[Tensor, "B L 4"]:
        """What the table adds to the logits of A, C, G and T."""
        raise NotImplementedError

    def fill(
        self,
        codes: Integer[Tensor, " n"],
        codebook: Float[Tensor, "256 4"],
        long_keys: Int64[Tensor, " m"],
        long_codes: Integer[Tensor, " m"],
        long_codebook: Float[Tensor, "256 4"],
    ) -> None:
        """Takes over the numbers.

        Args:
            codes: codeword of each context, those of each of `held_orders` after one another, in base four with the
                oldest base first.
            codebook: probabilities.
            long_keys: the long contexts in base four, rising.
            long_codes: codeword of each.
            long_codebook: probabilities.
        """
        self.codes.copy_(codes)
        self.codebook.copy_(codebook.log())
        self.long_keys.copy_(long_keys - _OFFSET)
        self.long_codes.copy_(long_codes)
        self.long_codebook.copy_(long_codebook.log())

    @torch.no_grad()
    def codes_of_the_next(self, ids: Integer[Tensor, "B L"], find: Finder | None = None) -> Codes:
        """The codewords of the base after each position, see `lookup`."""
        return self._told(ids, *(self.find if find is None else find)(ids))

    @torch.no_grad()
    def find(self, ids: Integer[Tensor, "B L"]) -> tuple[Int64[Tensor, "B L"], Int64[Tensor, "B L"]]:
        """The short and the long codewords at each position, as in `Codes`."""
        base = ids.long() - tokens.FIRST_BASE
        known = (base >= 0) & (base < 4)
        base = torch.where(known, base, 0)
        run = _run_lengths(known)
        word = _words(base)
        held = [max(o for o in self.shape.held_orders if o <= length) for length in range(LONG_ORDER + 1)]
        starts = dict(zip(self.shape.held_orders, self.shape.starts, strict=True))
        start = torch.tensor([starts[order] for order in held], device=ids.device)[run]
        context = word % torch.tensor([4**order for order in held], device=ids.device)[run]
        short = self.codes[start + context].long()
        return short, self._long(word, run)

    def _told(self, ids: Integer[Tensor, "B L"], short: Int64[Tensor, "B L"], long: Int64[Tensor, "B L"]) -> Codes:
        """Codewords that were found, and how well each had foretold the base that came."""
        base = (ids.long() - tokens.FIRST_BASE)[:, 1:]
        known = (base >= 0) & (base < 4) & (ids[:, :-1] != tokens.PAD)  # behind padding a sequence begins
        before = self._best(short[:, :-1], long[:, :-1]).gather(2, base.clamp(0, 3)[..., None])[..., 0]
        return Codes(short, long, nn.functional.pad(torch.where(known, before - _EVEN, 0), (1, 0)))

    def _long(self, word: Int64[Tensor, "B L"], run: Int64[Tensor, "B L"]) -> Int64[Tensor, "B L"]:
        nowhere = torch.full_like(word, -1)
        if not self.shape.long_contexts:
            return nowhere
        key = (word - _OFFSET).int()
        place = _place(self.long_keys, key)
        found = (self.long_keys[place] == key) & (run >= LONG_ORDER)
        return torch.where(found, self.long_codes[place].long(), nowhere)

    def counted_of_the_next(self, codes: Codes) -> Counted:
        """What such codewords stand for."""
        best, short = self._best(codes.short, codes.long), self.codebook[codes.short]
        return Counted(best, short, codes.long >= 0, codes.told)

    def _best(self, short: Int64[Tensor, "B L"], long: Int64[Tensor, "B L"]) -> Float[Tensor, "B L 4"]:
        return torch.where((long >= 0)[..., None], self.long_codebook[long.clamp(min=0)], self.codebook[short])


class NextBaseTable(ContextTable[Codes, Counted]):
    """A table that tells a causal network of the base after each position.

    Args:
        shape: which contexts are held.
        d_model: channels of the network.
    """

    def __init__(self, shape: TableShape, d_model: int) -> None:
        super().__init__(shape)
        self.inputs = nn.Linear(FEATURES, d_model, bias=False)
        nn.init.normal_(self.inputs.weight, std=0.02)
        self.weights = nn.Linear(d_model, 2)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    lookup = ContextTable.codes_of_the_next
    counted = ContextTable.counted_of_the_next

    def alone(self, counted: Counted) -> Float[Tensor, "B L 4"]:
        """Logits of A, C, G and T without the network."""
        return counted.best

    def features(self, counted: Counted) -> Float[Tensor, "B L D"]:
        """What the network reads beside each base."""
        return self.inputs(plain_features(counted))

    def share(self, hidden: Float[Tensor, "B L D"], counted: Counted) -> Float[Tensor, "B L 4"]:
        """What the table adds to the logits of A, C, G and T."""
        best, short = self.weights(hidden).float().split(1, dim=2)
        return (1 + best) * counted.best + short * counted.short


def plain_features(counted: Counted) -> Float[Tensor, "B L 10"]:
    """Both distributions, whether a long context is held, and how well the base at each position had been foretold."""
    told, found = counted.told[..., None], counted.found[..., None]
    parts = (counted.short - _EVEN, counted.best - counted.short, found, told)
    return torch.cat([part.to(counted.best.dtype) for part in parts], dim=2)


def _place(rising: Int32[Tensor, " m"], wanted: Int32[Tensor, "B L"]) -> Int64[Tensor, "B L"]:
    """The first place of a value not below each of those wanted, or the last place."""
    last = len(rising) - 1
    if not torch.compiler.is_exporting():
        return torch.searchsorted(rising, wanted).clamp(max=last)
    place = torch.zeros_like(wanted, dtype=torch.int64)  # exporters have no such search, but what it consists of
    for step in reversed([1 << bit for bit in range(last.bit_length())]):
        further = place + step
        below = rising[(further - 1).clamp(max=last)] < wanted
        place = torch.where(below & (further <= last), further, place)
    return place


def _before(values: Int64[Tensor, "B L"], distance: int) -> Int64[Tensor, "B L"]:
    """What stands so many positions before each; zero where nothing does."""
    return nn.functional.pad(values, (distance, 0))[:, : values.shape[1]]


def _run_lengths(known: Bool[Tensor, "B L"]) -> Int64[Tensor, "B L"]:
    """Bases in one piece that end at each position; `LONG_ORDER` where there are more."""
    run = known.long()
    span = 1
    while span < LONG_ORDER:  # each turn doubles the bases that a run may have
        run = torch.where(run == span, run + _before(run, span), run)
        span *= 2
    return run


def _words(base: Int64[Tensor, "B L"]) -> Int64[Tensor, "B L"]:
    """The last `LONG_ORDER` bases up to each position in base four, the oldest first."""
    word = base
    span = 1
    while span < LONG_ORDER:  # each turn doubles the bases that a word holds
        word = word + _before(word, span) * 4**span
        span *= 2
    return word
