"""What a fine-tuning run is made of: the network, its head, the data, the optimiser and the length of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from genomamba.config import ModelConfig, OptimConfig, TableShape, TrainConfig
from mamba_configs.settings import Real, Section, Whole

DEFAULT_PRESET = "genomamba-classifier-small"
PRETRAINED_PRESET = "genomamba-finetune"


class StemConfig(Section):
    """What stands between the bases and the backbone when training starts from scratch."""

    taps: Whole = Field(
        default=0, ge=0, le=255, description="a whole number of bases each motif scanner sees, 0 for a plain embedding"
    )
    stride: Whole = Field(default=1, ge=1, le=4096, description="a whole number of bases that become one position")
    positions: bool | Literal["auto"] = Field(
        default=False, description="true (the place in the window matters, as at a promoter), false or auto"
    )

    @model_validator(mode="after")
    def _scanned(self) -> StemConfig:
        if self.stride > 1 and not self.taps:
            raise ValueError(f"stem.stride={self.stride} needs motif scanners: set stem.taps too, such as 15")
        return self


class HeadConfig(Section):
    """From the backbone's outputs to class logits."""

    pooling: Literal["mean", "last", "attention", "scales"] = Field(
        default="mean", description="mean, last, attention or scales"
    )
    dropout: Real = Field(default=0.5, ge=0, lt=1, description="a number from 0 up to 1")
    class_weights: Literal["balanced", "none"] = Field(default="balanced", description="balanced or none")
    label_smoothing: Real = Field(default=0.0, ge=0, lt=0.5, description="a number from 0 up to 0.5")


class LinearShape(Section):
    """What is needed to build a linear part before its weights are read.

    Attributes:
        features: frequencies of k-mers, or the letter at each place.
        k: bases of a word (k-mers).
        both_strands: whether a word and its reverse complement count as one (k-mers).
        places: bases of the window (letters).
    """

    features: Literal["kmers", "letters"] = Field(default="kmers", description="kmers or letters")
    k: Whole = Field(default=5, ge=1, le=8, description="a whole number from 1 to 8")
    both_strands: bool = Field(default=False, description="true or false")
    places: Whole = Field(default=0, ge=0, le=2**16, description="a whole number of bases")

    @property
    def n_features(self) -> int:
        """Numbers that a sequence becomes."""
        if self.features == "letters":
            return 4 * self.places
        own_complements = 4 ** (self.k // 2) if self.k % 2 == 0 else 0
        return (4**self.k + own_complements) // 2 if self.both_strands else 4**self.k

    @property
    def name(self) -> str:
        """What the regression is called in tables."""
        return "one-hot" if self.features == "letters" else f"{self.k}-mer"


class TypicalShape(Section):
    """What is needed to build a measure of typicality before its numbers are read.

    Attributes:
        order: bases of context of the classes' Markov models.
        lengths: bases of the sequences that are told apart, rising.
        held: most held-out sequences of a class and a length.
        stranded: whether only the strand as given is read.
    """

    order: Whole = Field(default=5, ge=0, le=8, description="a whole number of bases")
    lengths: list[Whole] = Field(default_factory=list, min_length=1, description="whole numbers of bases")
    held: Whole = Field(default=1, ge=1, le=2**16, description="a whole number of sequences")
    stranded: bool = Field(default=False, description="true or false")


class FinetuneData(Section):
    """Labelled sequences, and which of them are held out."""

    window: Whole | Literal["auto"] = Field(
        default="auto", description="a whole number of bases such as 2^12, or auto (the longest labelled sequence)"
    )
    stride: Whole | None = Field(default=None, ge=1, description="bases between training windows, or null (no overlap)")
    max_n_fraction: Real = Field(default=0.01, ge=0, le=1, description="a number from 0 to 1")
    max_per_class: Whole | None = Field(default=None, ge=1, description="a whole number of windows, or null")
    mutate: Real | Literal["auto"] = Field(default="auto", description="a number from 0 up to 0.75, or auto")
    reverse_complement: bool | Literal["auto"] = Field(
        default="auto", description="true, false, or auto (true where the strand carries no meaning)"
    )
    valid_fraction: Real = Field(default=0.1, gt=0, lt=0.5, description="a number between 0 and 0.5")
    test_fraction: Real = Field(default=0.1, gt=0, lt=0.5, description="a number between 0 and 0.5")
    gap: Whole | None = Field(default=None, ge=0, description="a whole number of bases between splits, or null (auto)")
    split_seed: Whole = Field(default=0, ge=0, lt=2**63, description="a whole number from 0")
    upstream: Whole = Field(default=249, ge=0, le=2**20, description="a whole number of bases before the TSS")
    downstream: Whole = Field(default=50, ge=0, le=2**20, description="a whole number of bases after the TSS")
    split: Literal["official", "chromosomes"] = Field(
        default="official", description="official (as the folder of intervals says) or chromosomes"
    )
    test_chromosomes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="a list of names such as [chr8, chr9], or null (dealt by size)"
    )
    valid_chromosomes: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="a list of names such as [chr10], or null (dealt by size)"
    )
    sequence_column: str | None = Field(default=None, description="a column's name, or null (sequence or seq)")
    label_column: str | None = Field(default=None, description="a column's name, or null (label or class)")
    strand: Literal["plus", "minus"] | None = Field(
        default=None, description="plus, minus (of start sites that name no strand) or null (they are refused)"
    )
    tss_distance: Whole = Field(default=1000, ge=0, description="bases a negative stays away from every TSS")
    negatives: Real = Field(default=1.0, gt=0, le=100, description="negatives sampled for each positive")
    workers: Whole = Field(default=0, ge=0, le=256, description="a whole number from 0 to 256 (processes)")

    @model_validator(mode="after")
    def _in_range(self) -> FinetuneData:
        if isinstance(self.window, int) and not 8 <= self.window <= 2**24:
            raise ValueError(f"data.window={self.window} must lie from 8 to 2^24")
        if not isinstance(self.mutate, str) and not 0 <= self.mutate < 0.75:
            raise ValueError(f"data.mutate={self.mutate} must lie from 0 up to 0.75")
        if self.split == "official" and (self.test_chromosomes or self.valid_chromosomes):
            raise ValueError("chromosomes to hold out need data.split=chromosomes")
        return self


class FinetuneTrain(TrainConfig):
    """How long, how much at a time, and when to stop early."""

    context_parallel: Whole = Field(
        default=1, ge=1, le=1, description="1 (only pretrain shares windows between devices)"
    )
    freeze: bool = Field(default=False, description="true (only the head is fitted, on kept features) or false")
    layers: Whole | Literal["auto", "all"] = Field(
        default="auto", description="a whole number (the last layers of a pre-trained model that learn), all or auto"
    )
    epochs: Whole | None = Field(default=20, ge=1, description="a whole number of passes over the training split")
    batch_size: Whole | Literal["auto"] = Field(default="auto", description="sequences a step, or auto")
    patience: Whole = Field(default=10, ge=1, description="validations without improvement before stopping")
    validate_every: Whole | Literal["auto"] = Field(default="auto", description="steps, or auto (once an epoch)")
    checkpoint_seconds: Real = Field(default=60, gt=0, description="a number of seconds above 0")

    @field_validator("layers")
    @classmethod
    def _is_positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"train.layers={value} is not positive; train.freeze=true trains the head alone")
        return value


class FinetuneOptim(OptimConfig):
    """AdamW as classifiers take it: a gentler rate than language models' and a longer memory."""

    lr: Real = Field(default=2e-3, gt=0, le=1, description="a number between 0 and 1")
    min_lr_fraction: Real = Field(
        default=0.02, ge=0, le=1, description="a number from 0 to 1 (of lr, where the cosine ends)"
    )
    beta2: Real = Field(default=0.98, ge=0, lt=1, description="a number from 0 up to 1")


def _small_model() -> ModelConfig:
    return ModelConfig(d_model=64, n_layers=2, bidirectional="add")


def _scanners() -> StemConfig:
    return StemConfig(taps=15, stride=3, positions="auto")


class FinetuneConfig(Section):
    """Everything that decides a fine-tuning run but the files; by default that of the preset for a first network."""

    model: ModelConfig = Field(default_factory=_small_model, description="a section")
    stem: StemConfig = Field(default_factory=_scanners, description="a section")
    table: TableShape | None = Field(
        default=None, description="the size of the pre-trained model's table of contexts, which the program writes"
    )
    head: HeadConfig = Field(default_factory=HeadConfig, description="a section")
    data: FinetuneData = Field(default_factory=FinetuneData, description="a section")
    optim: FinetuneOptim = Field(default_factory=FinetuneOptim, description="a section")
    train: FinetuneTrain = Field(default_factory=FinetuneTrain, description="a section")

    @model_validator(mode="after")
    def _strands_alike(self) -> FinetuneConfig:
        if self.model.reverse_complement == "equivariant" and self.stem.taps:
            raise ValueError("motif scanners read one strand: model.reverse_complement=equivariant needs stem.taps=0")
        return self
