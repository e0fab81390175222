"""A sequence classifier: bases, stem, backbone, pooling, logits. Padding never changes what a sequence gets.

Shapes: `B` sequences, `L` bases (the longest in the batch), `P` positions after the stem, `D` channels, `C` classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn import functional

from genomamba import tokens
from genomamba.classifier.config import HeadConfig, LinearShape, StemConfig, TypicalShape
from genomamba.classifier.linear import LinearPart
from genomamba.classifier.small_cnn import SmallCnn
from genomamba.classifier.typicality import Typicality
from genomamba.config import ModelConfig, TableShape
from genomamba.language_model.embedding import TokenEmbedding
from genomamba.language_model.model import BUNDLE_KIND as LM_KIND
from genomamba.language_model.model import backbone_config, table_shape
from genomamba.language_model.sided_table import context_table
from mamba_configs.settings import validated
from mamba_data_prep.errors import UserError
from mamba_kernels.blocks import Backbone

BUNDLE_KIND: Final = "genomamba-classifier"
BUNDLE_FORMAT: Final = 1
_FINEST: Final = 8
SCALES: Final = 1 + 2 + 4 + 8
"""Means that "scales" puts beside each other."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What is needed to build a classifier and to use it.

    Attributes:
        classes: names in the order of the logits.
        window: longest sequence, in bases, that it was trained on; longer ones are read window by window.
        temperature: divides the logits, fitted on validation so that confidences are honest.
        linear: the regression that is a part of it, or None.
        cnn: places that the small convolutional network looks at which is a part of it, or None.
        table: the table of contexts of the language model that it was made from, or None.
        typical: sizes of what tells how typical a sequence is of the training data, or None (older models).
        stranded: whether it was trained without reverse complements because strand carries meaning.
    """

    model: ModelConfig
    stem: StemConfig
    head: HeadConfig
    classes: tuple[str, ...]
    window: int
    temperature: float = 1.0
    stranded: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)
    table: TableShape | None = None
    linear: LinearShape | None = None
    cnn: int | None = None
    typical: TypicalShape | None = None

    @property
    def strands_alike(self) -> bool:
        """Whether both strands of a sequence get the same logits: strand means nothing, the network is equivariant."""
        return self.model.reverse_complement == "equivariant" and not self.stranded

    def to_dict(self) -> dict[str, Any]:
        """Gives what the bundle's config.json holds."""
        return {
            "format": BUNDLE_FORMAT,
            "kind": BUNDLE_KIND,
            "model": self.model.model_dump(mode="json"),
            "stem": self.stem.model_dump(mode="json"),
            "head": self.head.model_dump(mode="json"),
            "table": None if self.table is None else self.table.model_dump(),
            "linear": None if self.linear is None else self.linear.model_dump(),
            "cnn": self.cnn,
            "typical": None if self.typical is None else self.typical.model_dump(),
            "pooling": self.head.pooling,
            "classes": list(self.classes),
            "window": self.window,
            "temperature": self.temperature,
            "stranded": self.stranded,
            "training": dict(self.training),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str | Path) -> ClassifierConfig:
        """Reads a bundle's config.json.

        Raises:
            UserError: it is of another kind or format, or a value is wrong.
        """
        if values.get("kind") != BUNDLE_KIND:
            raise UserError(
                "not a classifier",
                path=path,
                found=values.get("kind"),
                accepted=BUNDLE_KIND,
                fix="make one with `genomamba finetune ... --from MODEL`" if values.get("kind") == LM_KIND else None,
            )
        if values.get("format") != BUNDLE_FORMAT:
            raise UserError(
                "made by another version", path=path, found=values.get("format"), accepted=f"format {BUNDLE_FORMAT}",
                fix="use the version of seqmamba that wrote it",
            )  # fmt: skip
        classes, window, temperature = values.get("classes"), values.get("window"), values.get("temperature", 1.0)
        if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(c, str) for c in classes):
            raise UserError("the model's classes are damaged", path=path, found=classes, accepted="a list of names")
        if not isinstance(window, int) or window < 1:
            raise UserError("the model's window is damaged", path=path, found=window, accepted="a whole number")
        if (places := values.get("cnn")) is not None and not (isinstance(places, int) and places > 0):
            raise UserError("the model's CNN is damaged", path=path, found=places, accepted="a whole number of places")
        if not isinstance(temperature, int | float) or not 0 < temperature < 1e6:
            raise UserError("the model's temperature is damaged", path=path, found=temperature, accepted="above 0")
        return cls(
            model=validated(ModelConfig, values.get("model", {}), path=path),
            stem=validated(StemConfig, values.get("stem", {}), path=path),
            head=validated(HeadConfig, values.get("head", {}), path=path),
            classes=tuple(classes),
            window=window,
            temperature=float(temperature),
            stranded=bool(values.get("stranded", True)),
            training=values.get("training", {}),
            table=table_shape(values, path),
            linear=None if (shape := values.get("linear")) is None else validated(LinearShape, shape, path=path),
            cnn=values.get("cnn"),
            typical=None if (sizes := values.get("typical")) is None else validated(TypicalShape, sizes, path=path),
        )


class Letters(nn.Module):
    """A, C, G and T one-hot, N a quarter of each, and nothing for padding."""

    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        values = torch.zeros(tokens.VOCAB_SIZE, 4)
        values[tokens.FIRST_BASE : tokens.FIRST_BASE + 4] = torch.eye(4)
        values[tokens.N] = 0.25
        self.register_buffer("values", values, persistent=False)

    def forward(self, ids: Integer[Tensor, "B L"]) -> Float[Tensor, "B L 4"]:
        """The letters of token ids."""
        return self.values[ids.long()]


class ConvStem(nn.Module):
    """Scans for motifs at every base, and keeps of each `stride` bases the strongest response of each scanner.

    A, C, G and T are one-hot; N is a quarter of each, so that a run of N is no feature of its own; padding is zero, so
    a padded sequence meets exactly what an unpadded one meets beyond its end.
    """

    def __init__(self, d_model: int, stem: StemConfig) -> None:
        super().__init__()
        self.taps, self.stride = stem.taps, stem.stride
        self.conv = nn.Conv1d(4, d_model, stem.taps)
        self.mix = nn.Linear(d_model, d_model)
        self.letters = Letters()

    def forward(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        """One vector for every `stride` bases, the last ones of a row possibly fewer; zeros where all is padding."""
        before = (self.taps - 1) // 2
        x = functional.pad(self.letters(ids).transpose(1, 2), (before, self.taps - 1 - before))
        x = functional.gelu(self.conv(x))
        inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        x = torch.where(inside[:, None], x, -torch.inf)
        x = self._strongest(x).transpose(1, 2)
        return self.mix(torch.where(x == -torch.inf, 0, x))

    def _strongest(self, x: Float[Tensor, "B D L"]) -> Float[Tensor, "B D P"]:
        """The greatest of each `stride` values."""
        if not torch.compiler.is_exporting():
            return functional.max_pool1d(x, self.stride, ceil_mode=True)
        short = (x.shape[2] + self.stride - 1) // self.stride * self.stride - x.shape[2]  # pooling fixes the length
        return functional.pad(x, (0, short), value=-torch.inf).unflatten(2, (-1, self.stride)).amax(3)


class Pooling(nn.Module):
    """From valid positions to one vector: their mean, the last of them, a learned weighted mean, or means at scales.

    With "scales" the means over the whole, both halves, the quarters and the eighths lie beside each other; a part
    without a position is zero. Where a sequence may be read from either end, the last position and the parts are the
    means of those from both ends.

    Args:
        kind: mean, last, attention or scales.
        d_model: channels.
        both_ends: whether positions in opposite order must give the same.
    """

    def __init__(self, kind: str, d_model: int, *, both_ends: bool = False) -> None:
        super().__init__()
        self.kind, self.both_ends = kind, both_ends and kind in ("last", "scales")
        self.width = d_model * (SCALES if kind == "scales" else 1)
        self.weight = nn.Linear(d_model, 1) if kind == "attention" else None

    def forward(self, x: Float[Tensor, "B P D"], counts: Integer[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """`counts` positions of each row are valid, the rest is padding."""
        if not self.both_ends:
            return self._pooled(x, counts)
        place = (counts[:, None] - 1 - torch.arange(x.shape[1], device=x.device)).clamp(min=0)
        opposite = x.gather(1, place[..., None].expand_as(x))
        return (self._pooled(x, counts) + self._pooled(opposite, counts)) / 2

    def _pooled(self, x: Float[Tensor, "B P D"], counts: Integer[Tensor, " B"]) -> Float[Tensor, "B W"]:
        if self.kind == "last":
            return x[torch.arange(x.shape[0], device=x.device), counts - 1]
        valid = torch.arange(x.shape[1], device=x.device) < counts[:, None]
        if self.kind == "scales":
            return _at_scales(torch.where(valid[..., None], x, 0), counts)
        if self.weight is None:
            return torch.where(valid[..., None], x, 0).sum(1) / counts[:, None]
        scores = self.weight(x)[..., 0].masked_fill(~valid, -torch.inf)
        return torch.where(valid[..., None], x, 0).mul(scores.softmax(1)[..., None]).sum(1)


def _at_scales(x: Float[Tensor, "B P D"], counts: Integer[Tensor, " B"]) -> Float[Tensor, "B W"]:
    """Means over the whole, halves, quarters and eighths of the first `counts` positions; beyond them `x` is zero."""
    part = torch.arange(x.shape[1], device=x.device) * _FINEST // counts[:, None]
    part = part.clamp(max=_FINEST - 1)
    valid = (torch.arange(x.shape[1], device=x.device) < counts[:, None]).to(x.dtype)
    sums = x.new_zeros(x.shape[0], _FINEST, x.shape[2]).scatter_add_(1, part[..., None].expand_as(x), x)
    sizes = x.new_zeros(x.shape[0], _FINEST).scatter_add_(1, part, valid)
    means = []
    for n in (1, 2, 4, 8):
        total = sums.reshape(x.shape[0], n, _FINEST // n, -1).sum(2)
        means.append((total / sizes.reshape(x.shape[0], n, -1).sum(2)[..., None].clamp(min=1)).flatten(1))
    return torch.cat(means, 1)


class SequenceClassifier(nn.Module):
    """Class logits of DNA sequences of any length up to the window.

    Args:
        config: the network's shape, its head and its classes; with `linear` a regression gives a share
            of the logits, with `cnn` a small convolutional network too.

    Example:
        >>> model = SequenceClassifier(config)
        >>> logits = model(ids, lengths)   # ids (B, L) padded on the right, lengths (B,)
    """

    shares: Tensor
    linear: LinearPart | None
    cnn: SmallCnn | None
    typicality: Typicality | None

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        d_model, stem = config.model.d_model, config.stem
        if stem.taps:
            self.stem = ConvStem(d_model, stem)
        else:
            self.embedding = TokenEmbedding(config.model)
        self.table = None if config.table is None else context_table(config.table, config.model)
        if stem.positions:
            shape = (-(-config.window // stem.stride), d_model)
            self.positions, self.readout = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.ones(shape))
            for parameter in (self.positions, self.readout):
                parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.backbone = Backbone(backbone_config(config.model))
        self.pooling = Pooling(config.head.pooling, d_model, both_ends=config.strands_alike)
        self.dropout = nn.Dropout(config.head.dropout)
        self.head = nn.Linear(self.pooling.width, len(config.classes))
        self.linear = None if config.linear is None else LinearPart(config.linear, len(config.classes))
        self.cnn = None if config.cnn is None else SmallCnn(config.cnn, len(config.classes))
        self.typicality = None if config.typical is None else Typicality(config.typical, len(config.classes))
        shares = [0.0, 1.0] if config.cnn is None else [0.0, 1.0, 0.0]
        self.register_buffer("shares", torch.tensor(shares), persistent=config.linear is not None)

    def join(self, linear: LinearPart, cnn: SmallCnn | None, shares: Mapping[str, float]) -> None:
        """Makes a fitted regression, and a small convolutional network, parts of the classifier.

        Args:
            linear: the regression.
            cnn: trained; None where places do not matter.
            shares: factors of the logits of `linear`, `network` and `cnn`, see `genomamba.classifier.shares`; a CNN
                without a share is left out.
        """
        self.cnn = cnn if shares.get("cnn") else None
        self.config = replace(self.config, linear=linear.shape, cnn=None if self.cnn is None else self.cnn.places)
        self.linear = linear
        names = ("linear", "network") if self.cnn is None else ("linear", "network", "cnn")
        self.register_buffer("shares", torch.tensor([float(shares[name]) for name in names]))

    def know_typical(self, typicality: Typicality) -> None:
        """Makes what tells typical sequences from foreign ones a part of the classifier."""
        self.typicality = typicality
        self.config = replace(self.config, typical=typicality.shape)

    def forward(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Computes logits, before the temperature divides them: the network's, and those of other parts with shares.

        Args:
            ids: tokens, padded on the right.
            lengths: bases of each row, at least one.

        Raises:
            ValueError: a row is longer than the positions the model knows.
        """
        if self.linear is None:
            return self.network(ids, lengths)
        linear, network, *others = self.shares.unbind()
        logits = linear * self.linear(ids, lengths)
        if self.cnn is not None:
            logits = logits + others[0] * self.cnn.of_ids(ids, lengths)
        if not torch.compiler.is_exporting() and not network:  # of an exported program's numbers it cannot be asked
            return logits
        return logits + network * self.network(ids, lengths)

    def network(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B C"]:
        """Computes the network's own logits, see `forward`."""
        return self.head(self.dropout(self.pooled(ids, lengths)))

    def pooled(self, ids: Integer[Tensor, "B L"], lengths: Integer[Tensor, " B"]) -> Float[Tensor, "B W"]:
        """Computes what the head reads: one vector a sequence.

        Args:
            ids: tokens, padded on the right.
            lengths: bases of each row, at least one.

        Raises:
            ValueError: a row is longer than the positions the model knows.
        """
        x = self.stem(ids, lengths) if self.config.stem.taps else self.embedding(ids)
        if self.table is not None:
            x = x + self.table.features(self.table.counted(self.table.lookup(ids)))
        counts = (lengths.long() + self.config.stem.stride - 1) // self.config.stem.stride
        place = torch.arange(x.shape[1], device=x.device)
        if self.config.stem.positions:
            if not torch.compiler.is_exporting() and x.shape[1] > len(self.positions):
                raise ValueError(f"{ids.shape[1]} bases are longer than the model's window of {self.config.window}")
            x = x + self.positions[place]
        y, _ = self.backbone(x, reset=_padding_starts(counts, x.shape[1]))
        if self.config.stem.positions:
            y = y * self.readout[place]  # what a response counts for may depend on where it is
        if self.config.strands_alike:
            y = (y + y.flip(2)) / 2  # the reverse complement's outputs are these, flipped along length and channels
        return self.pooling(y, counts)

    def load_pretrained(self, state: Mapping[str, Tensor], path: str | Path) -> list[str]:
        """Takes over the weights of a language model or classifier; the head stays new if the classes differ.

        Returns:
            The names of the parameters that stay new.

        Raises:
            UserError: the backbone's weights do not fit.
        """
        own = self.state_dict()
        fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
        new = [name for name in own if name not in fitting]
        misfit = [name for name in new if name.startswith(("backbone.", "embedding.", "stem.", "table."))]
        if misfit:
            raise UserError("the model's weights do not fit this network", path=path, found=misfit[0])
        self.load_state_dict(fitting, strict=False)
        return new

    @classmethod
    def from_bundle(cls, path: str | Path) -> SequenceClassifier:
        """Reads a classifier from a bundle or a run folder, in evaluation mode.

        Raises:
            UserError: there is no bundle, it is damaged, or it holds another kind of model.
        """
        from mamba_training.bundle import load_bundle

        bundle = load_bundle(path)
        model = cls(ClassifierConfig.from_dict(bundle.config, path))
        try:
            model.load_state_dict(bundle.state)
        except RuntimeError as error:
            raise UserError("the weights do not fit the configuration", path=path, found=str(error)) from error
        return model.eval()


def _padding_starts(counts: Integer[Tensor, " B"], positions: int) -> Tensor | None:
    """True where each row's padding begins: it is a document of its own, which neither direction remembers across."""
    if not torch.compiler.is_exporting() and bool((counts == positions).all()):
        return None
    return torch.arange(positions, device=counts.device) == counts[:, None]
