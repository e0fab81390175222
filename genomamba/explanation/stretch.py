"""One stretch of DNA, explained: its table, and how each method is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
import torch
from jaxtyping import Integer
from torch import Tensor

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.explanation.attribution import (
    difference_from_unknown,
    gradient_x_input,
    integrated_gradients,
    mutagenesis,
)
from genomamba.explanation.remembered import openness, remembered
from genomamba.explanation.targets import ClassOdds, HiddenBases, Likelihood
from genomamba.language_model.model import GenomeLM
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.intervals import Interval
from mamba_kernels.blocks.memory import LayerMemory

METHODS: Final = ("ism", "gradient", "integrated", "memory")
_STRONGEST: Final = 8


@dataclass(eq=False)
class Stretch:
    """A stretch and what is found of it, base by base.

    Attributes:
        region: where it is, and on which strand it is read.
        letters: its bases, as they are read.
        ids: their tokens.
        goal: the number that is explained, and its value.
        importance: a value for each base, by method: what its presence adds to the number.
        mutations: (L, 4) of in-silico mutagenesis.
        opened: (layers, L) openness of the states.
        memory: steps and rates of the layers.
    """

    region: Interval
    letters: str
    ids: Integer[Tensor, " L"]
    goal: str = ""
    importance: dict[str, np.ndarray] = field(default_factory=dict)
    mutations: np.ndarray | None = None
    opened: np.ndarray | None = None
    memory: list[LayerMemory] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`NAME:FIRST-LAST`, 1-based, with its strand if it has one."""
        return str(self.region)

    @property
    def minus(self) -> bool:
        """Whether it is read from the minus strand."""
        return self.region.strand == "-"

    def table(self) -> pd.DataFrame:
        """A row a base in the order in which they are read.

        Columns are `seq_id, start` (0-based)`, strand` (that which is read)`, base`, the mutations to each base, and
        each method's importance.
        """
        start = np.arange(self.region.start, self.region.end)[:: -1 if self.minus else 1]
        place = {"seq_id": self.region.name, "start": start, "strand": "-" if self.minus else "+"}
        frame = pd.DataFrame({**place, "base": list(self.letters)})
        if self.mutations is not None:
            frame = frame.assign(**{f"to_{base}": self.mutations[:, n] for n, base in enumerate("ACGT")})
        opened = {} if self.opened is None or not len(self.opened) else {"openness": self.opened.mean(0)}
        return frame.assign(**self.importance, **opened)

    def strongest(self) -> pd.DataFrame:
        """The bases that matter most, counted from 1."""
        if not self.importance:
            return pd.DataFrame()
        table = self.table().drop(columns=["seq_id", "strand"])
        weight = np.abs(np.nan_to_num(next(iter(self.importance.values()))))
        return (
            table.iloc[np.argsort(-weight, kind="stable")[:_STRONGEST]]
            .assign(start=lambda rows: rows["start"] + 1)
            .rename(columns={"start": "base no."})
        )

    def explain(
        self,
        model: GenomeLM | SequenceClassifier,
        methods: Sequence[str],
        class_name: str | None,
        note: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Asks each of some methods.

        Args:
            model: in evaluation mode.
            methods: some of `METHODS`, all allowed (see `refusals`).
            class_name: the class of a classifier whose log-odds are explained; by default the likeliest.
            note: told how many more bases have been mutated.

        Raises:
            UserError: there is no such class, or the stretch is longer than the model knows positions for.
        """
        target = _target(model, self.region, self.ids, class_name)
        self.goal = target.name
        if "ism" in methods:
            self.mutations = mutagenesis(target, self.ids, note=note)
            base = self.ids.cpu().numpy().astype(int)[:, None] - tokens.FIRST_BASE
            others = np.where(np.arange(4) == base, 0.0, self.mutations)
            self.importance["ism"] = -others.sum(1) / 3
        if not isinstance(target, HiddenBases):
            with torch.no_grad():
                self.goal += f" {float(target(self.ids[None])[0]):.3f}"
            if "gradient" in methods:
                self.importance["gradient"] = gradient_x_input(target, self.ids)
            if "integrated" in methods:
                self.importance["integrated"] = integrated_gradients(target, self.ids)
                self.goal += f", {difference_from_unknown(target, self.ids):+.3f} against unknown bases"
        if "memory" in methods:
            self.memory = remembered(target, self.ids)
            self.opened = openness(self.memory, len(self.ids), bases_a_position(model))


def bases_a_position(model: GenomeLM | SequenceClassifier) -> int:
    """Bases behind one position of the network."""
    return model.config.stem.stride if isinstance(model, SequenceClassifier) else 1


def refusals(model: GenomeLM | SequenceClassifier) -> dict[str, str]:
    """The methods that tell nothing of a model, and why."""
    shape = model.config.model if isinstance(model, SequenceClassifier) else model.config
    found = {}
    if isinstance(model, SequenceClassifier) and model.linear is not None and not float(model.shares[1]):
        why = "the network has no share in this classifier, its regression decides; ask for ism"
        return dict.fromkeys(METHODS[1:], why)
    if isinstance(model, GenomeLM) and not model.objective.looks_ahead:
        why = "a masked model is asked one hidden base at a time; ask for ism or memory"
        found |= dict.fromkeys(("gradient", "integrated"), why)
    if not {"mamba", "mamba2"} & set(shape.layers):
        found["memory"] = "the model has no mamba or mamba2 layer"
    return found


def _target(
    model: GenomeLM | SequenceClassifier, region: Interval, ids: Tensor, class_name: str | None
) -> ClassOdds | HiddenBases | Likelihood:
    if isinstance(model, GenomeLM):
        if class_name is not None:
            raise UserError("a language model has no classes", found=f"--class {class_name}", fix="leave --class out")
        return Likelihood(model) if model.objective.looks_ahead else HiddenBases(model)
    window = model.config.window
    if model.config.stem.positions and len(ids) > window:
        raise UserError(
            "this stretch is longer than the model knows positions for", record=str(region),
            found=f"{len(ids):,} bases", accepted=f"up to {window:,}",
        )  # fmt: skip
    if class_name is None:
        with torch.no_grad():
            logits = model(ids[None], torch.tensor([len(ids)], device=ids.device))
        class_name = model.config.classes[int(logits.argmax())]
    return ClassOdds(model, class_name)
