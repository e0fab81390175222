"""What a backbone is made of: one frozen dataclass, checked where it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mamba_kernels.blocks.names import mixer_names

Number = int | float
BIDIRECTIONAL = ("none", "add", "concat")
REVERSE_COMPLEMENT = ("none", "augment", "equivariant")


@dataclass(frozen=True)
class BackboneConfig:
    """Shape and behaviour of a `Backbone`; every value is checked, and a wrong one is named with what is accepted.

    Attributes:
        d_model: Width of the residual stream.
        layers: One mixer name a layer, from the bottom up, such as `["mamba"] * 12`.
        d_state: States a channel (`N`) of a state space mixer; of `s4d`, whose states are complex, half as many.
        d_conv: Taps (`K`) of the short causal convolution.
        expand: Inner width of a state space mixer over `d_model`.
        dt_rank: Rank of the projection of the step size; "auto" is `ceil(d_model / 16)`.
        dt_min: Least step size at initialisation; of `hyena`, least rate of decay a token.
        dt_max: Greatest step size, or rate of decay, at initialisation.
        dt_floor: No initial step size lies under this.
        head_width: Channels of a head of a `mamba2` mixer; "auto" is the greatest divisor of the inner width up to 64.
        n_groups: Groups of a `mamba2` mixer's heads, each with its own B and C.
        conv_bias: Whether the convolution has a bias.
        proj_bias: Whether the projections into and out of a mixer have a bias.
        bidirectional: "none" is causal. "add" sums a left-to-right and a right-to-left pass; "concat" joins both
            passes' channels before the output projection.
        tie_directions: The two passes share their projections (as in Caduceus); convolution and scan stay separate.
        reverse_complement: "equivariant" splits the channels into two strands (Caduceus-PS). "augment" is the data
            loader's work, so that here it is the same as "none".
        n_heads: Heads of an `attention` mixer; "auto" makes them 64 wide, or fewer channels if need be.
        rope_theta: Base of the rotary embedding's wavelengths.
        norm_eps: Added to the mean square under the root of every RMSNorm.
        chunk_size: Tokens a block works on at a time, recomputed backward: memory is the residual stream plus one
            chunk; on very long inputs of layers that all look back it is one chunk of all layers, without the stream.
            None keeps every activation; "auto" keeps them for short inputs and works in chunks on long ones.
    """

    d_model: int
    layers: Sequence[str]
    d_state: int = 16
    d_conv: int = 4
    expand: Number = 2
    dt_rank: int | str = "auto"
    dt_min: Number = 1e-3
    dt_max: Number = 1e-1
    dt_floor: Number = 1e-4
    head_width: int | str = "auto"
    n_groups: int = 1
    conv_bias: bool = True
    proj_bias: bool = False
    bidirectional: str = "none"
    tie_directions: bool = True
    reverse_complement: str = "none"
    n_heads: int | str = "auto"
    rope_theta: Number = 10_000.0
    norm_eps: Number = 1e-5
    chunk_size: int | str | None = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) or not isinstance(self.layers, Sequence):
            raise _wrong("layers", self.layers, "a list of mixer names such as ['mamba', 'mamba']")
        object.__setattr__(self, "layers", tuple(self.layers))
        self._check_layers()
        for name in ("d_model", "d_state", "d_conv", "n_groups"):
            _check_positive_int(name, getattr(self, name))
        for name in ("dt_min", "dt_max", "dt_floor", "norm_eps", "rope_theta", "expand"):
            _check_positive_number(name, getattr(self, name))
        if self.dt_min > self.dt_max:
            raise _wrong("dt_min", self.dt_min, f"a number not above dt_max = {self.dt_max}")
        if round(self.expand * self.strand_width) != self.expand * self.strand_width:
            raise _wrong("expand", self.expand, f"a number whose product with {self.strand_width} channels is whole")
        _check_choice("bidirectional", self.bidirectional, BIDIRECTIONAL)
        _check_choice("reverse_complement", self.reverse_complement, REVERSE_COMPLEMENT)
        for name in ("conv_bias", "proj_bias", "tie_directions"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "true or false")
        self._check_int_or_word("dt_rank", "auto")
        self._check_int_or_word("head_width", "auto")
        self._check_int_or_word("n_heads", "auto")
        if self.chunk_size is not None:
            self._check_int_or_word("chunk_size", "auto", or_none=True)
        self._check_widths()

    def _check_layers(self) -> None:
        names = mixer_names()
        if not self.layers:
            raise _wrong("layers", self.layers, f"at least one of {', '.join(names)}")
        for index, name in enumerate(self.layers):
            if name not in names:
                raise _wrong(f"layers[{index}]", name, f"one of {', '.join(names)}")

    def _check_int_or_word(self, name: str, word: str, *, or_none: bool = False) -> None:
        value = getattr(self, name)
        if value != word:
            extra = f"{word!r}, null or " if or_none else f"{word!r} or "
            _check_positive_int(name, value, extra)

    def _check_widths(self) -> None:
        if self.reverse_complement == "equivariant" and self.d_model % 2:
            raise _wrong("d_model", self.d_model, "an even number, since reverse_complement = 'equivariant' splits it")
        if "attention" in self.layers and self.strand_width % (2 * self.head_count):
            accepted = f"a number of heads that divides {self.strand_width} channels into an even width"
            raise _wrong("n_heads", self.n_heads, accepted)
        if "mamba2" in self.layers and self.d_inner % self.channels_per_head:
            raise _wrong("head_width", self.head_width, f"'auto' or a divisor of {self.d_inner} inner channels")
        if "mamba2" in self.layers and self.ssd_heads % self.n_groups:
            raise _wrong("n_groups", self.n_groups, f"a divisor of {self.ssd_heads} heads")
        if "s4d" in self.layers and self.d_state % 2:
            raise _wrong("d_state", self.d_state, "an even number, since the states of s4d are pairs")

    @property
    def strand_width(self) -> int:
        """Channels a mixer sees: half of `d_model` where two strands share it."""
        return self.d_model // 2 if self.reverse_complement == "equivariant" else self.d_model

    @property
    def d_inner(self) -> int:
        """Inner width `D` of a state space mixer."""
        return round(self.expand * self.strand_width)

    @property
    def rank(self) -> int:
        """Rank of the step size's projection."""
        return math.ceil(self.strand_width / 16) if isinstance(self.dt_rank, str) else self.dt_rank

    @property
    def channels_per_head(self) -> int:
        """Channels `P` of a head of a `mamba2` mixer."""
        if not isinstance(self.head_width, str):
            return self.head_width
        return next(width for width in range(min(64, self.d_inner), 0, -1) if self.d_inner % width == 0)

    @property
    def ssd_heads(self) -> int:
        """Heads of a `mamba2` mixer."""
        return self.d_inner // self.channels_per_head

    @property
    def head_count(self) -> int:
        """Heads of an attention mixer."""
        return max(1, self.strand_width // 64) if isinstance(self.n_heads, str) else self.n_heads

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later input: only then is there a state to carry."""
        return self.bidirectional == "none" and self.reverse_complement != "equivariant"

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON and YAML hold them."""
        return {**dataclasses.asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BackboneConfig:
        """The config that `to_dict` wrote.

        Raises:
            ValueError: A key is unknown or missing, or a value is not accepted; the message names it.
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in fields:
                raise ValueError(f"backbone config: unknown key {name!r}; accepted: {', '.join(fields)}")
        for name in ("d_model", "layers"):
            if name not in values:
                raise ValueError(f"backbone config: the key {name!r} is missing")
        return cls(**values)


def _wrong(name: str, found: object, accepted: str) -> ValueError:
    return ValueError(f"backbone config: {name} = {found!r} is not accepted; it must be {accepted}")


def _check_positive_int(name: str, value: object, before: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(name, value, f"{before}a whole number of at least 1")


def _check_positive_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise _wrong(name, value, "a finite number above 0")


def _check_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise _wrong(name, value, f"one of {', '.join(accepted)}")
