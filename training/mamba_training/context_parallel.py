"""One sequence over several devices: the ranks of a run as a mesh of replicas x parts, and who holds which part.

Ranks `k * size` to `k * size + size - 1` are one replica: they read the same windows, and each holds a consecutive part
of every one. The ranks' gradients add up to the gradient of the whole, so DDP and FSDP go on averaging over all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightning.pytorch import Callback, LightningModule, Trainer

from mamba_data_prep.errors import UserError
from mamba_kernels.blocks import Backbone


@dataclass(frozen=True)
class ContextPlace:
    """Which part of every sequence a rank holds.

    Args:
        rank: the part's number.
        size: parts of a sequence; 1 is the whole.
    """

    rank: int = 0
    size: int = 1

    def part(self, length: int) -> slice:
        """This rank's tokens of a sequence; parts differ in length by one at most."""
        return slice(self.rank * length // self.size, (self.rank + 1) * length // self.size)


def replica(rank: int, world_size: int, context_parallel: int) -> tuple[int, int]:
    """The number of a rank's replica, and how many there are: what a sampler takes for rank and world size."""
    return rank // context_parallel, max(1, world_size // context_parallel)


class ContextParallel(Callback):
    """Splits the sequences of every `Backbone` in a module while it is trained.

    The module's attribute `context` is set to this rank's `ContextPlace`. Its `training_step` computes on
    `context.part(length)` of each row and returns `size` times its part of the loss, so that the ranks' mean is the
    whole; `tokens_in` counts whole rows.

    Args:
        size: ranks that share a sequence.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lay out the mesh, now that the processes have met.

        Raises:
            UserError: the devices cannot be dealt out so, or the model cannot be split.
        """
        from torch.distributed.device_mesh import init_device_mesh

        world = trainer.world_size
        if world % self.size or not hasattr(pl_module, "context"):
            raise UserError(
                f"a sequence cannot be split over {self.size} of {world} devices"
                if world % self.size
                else f"{type(pl_module).__name__} cannot train on parts of sequences",
                accepted=f"a number of devices that {self.size} divides" if world % self.size else "pretrain",
                fix=f"--devices {self.size}, or --context-parallel 1",
            )
        kind = trainer.strategy.root_device.type
        mesh = init_device_mesh(kind, (world // self.size, self.size), mesh_dim_names=("data", "context"))
        group = mesh.get_group("context")
        pl_module.context = ContextPlace(trainer.global_rank % self.size, self.size)  # pyright: ignore[reportArgumentType]
        try:
            for module in pl_module.modules():
                if isinstance(module, Backbone):
                    module.split_over(group)
        except ValueError as error:
            raise UserError(str(error), fix="--context-parallel 1") from None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the model back whole."""
        pl_module.context = ContextPlace()  # pyright: ignore[reportArgumentType]
        for module in pl_module.modules():
            if isinstance(module, Backbone):
                module.split_over(None)
