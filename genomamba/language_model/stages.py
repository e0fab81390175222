"""Length warm-up: a run that begins on short windows of its training bases, with as many bases a step all along."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from genomamba.config import PretrainConfig
from genomamba.language_model.batches import BatchPlan, fitted_step
from genomamba.language_model.data import make_split
from genomamba.language_model.model import GenomeLM
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import Split
from mamba_data_prep.genomes.windows import WindowTable, cut, joined_tables
from mamba_kernels.blocks import BackboneConfig


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        split: of the run, with this stage's training windows.
        until: the share of the run at which it ends.
        backbone: the network's configuration, with chunks that fit these windows in memory.
    """

    split: Split
    until: float
    backbone: BackboneConfig

    def __str__(self) -> str:
        return (
            f"{len(self.split.train):,} windows of {self.split.train.window:,} bases until {self.until:.0%} of the run"
        )


def make_stages(
    model: GenomeLM, genome: Genome, split: Split, settings: PretrainConfig, plan: BatchPlan
) -> list[Stage]:
    """The stages that the settings ask for, the last on windows of `data.window` bases.

    The shorter windows are pieces of the longest ones, so that no stage reads a base that another split has; with
    `data.beyond_regions`, they are those that a run on such windows alone would have.

    Args:
        model: whose backbone has chunks that fit the longest windows.
        genome: that is read.
        split: into windows of `data.window` bases.
        settings: of the run.
        plan: of the longest windows, which has been found to fit in memory.

    Raises:
        UserError: a batch of shorter windows does not fit in memory, however small the chunks.
    """
    longest, found, until = model.backbone.config, [], 0.0
    for stage in settings.data.stages:
        until += stage.share
        data = settings.data.model_copy(update={"window": stage.window, "stages": ()})
        if settings.data.beyond_regions:
            train = make_split(genome, data, settings.bed).train
        else:
            train = cut(genome, split.train, stage.window, max_n_fraction=data.max_n_fraction)
        rows = dataclasses.replace(plan, batch_size=plan.batch_size * settings.data.window // stage.window)
        model.backbone.config = dataclasses.replace(longest, chunk_size=settings.model.chunk_size)
        fitted = fitted_step(model, settings, rows, stage.window, batch_is_fixed=True)
        found.append(Stage(dataclasses.replace(split, train=train), until, fitted.work.config))
    model.backbone.config = longest
    return [*found, Stage(split, 1.0, longest)]


def all_read(stages: list[Stage]) -> WindowTable:
    """The training windows of all stages."""
    return joined_tables(*(stage.split.train for stage in stages))
