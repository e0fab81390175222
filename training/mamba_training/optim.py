"""AdamW as selective state space models need it: which parameters decay, and how the learning rate goes up and down."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from mamba_data_prep.errors import UserError


@dataclass(frozen=True)
class OptimSettings:
    """Settings of AdamW and of its learning rate's curve (Loshchilov and Hutter 2019; Gu and Dao 2023, appendix E.2).

    Args:
        lr: the peak learning rate.
        min_lr: the rate at the end of the run.
        warmup_steps: optimizer steps of linear warm-up; None: `warmup_fraction` of the run.
        warmup_fraction: share of the run, where `warmup_steps` is not given.
        weight_decay: decoupled decay of matrices; never of norms, biases, A, D or other 1-D parameters.
        decay_embeddings: whether embedding tables decay too.
        betas, eps: of AdamW.

    Raises:
        UserError: a value is out of its range.
    """

    lr: float | int = 1e-3
    min_lr: float | int = 1e-5
    warmup_steps: int | None = None
    warmup_fraction: float | int = 0.02
    weight_decay: float | int = 0.1
    decay_embeddings: bool = False
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UserError("lr is out of range", found=self.lr, accepted="a number above 0")
        if not 0 <= self.min_lr <= self.lr:
            raise UserError("min_lr is out of range", found=self.min_lr, accepted=f"between 0 and lr ({self.lr:g})")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise UserError("warmup_steps is negative", found=self.warmup_steps, accepted="0 or more, or None")
        if not 0 <= self.warmup_fraction < 1:
            raise UserError("warmup_fraction is out of range", found=self.warmup_fraction, accepted="0 up to 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError("weight_decay is out of range", found=self.weight_decay, accepted="0 or more")


def param_groups(
    module: nn.Module, weight_decay: float | int, *, decay_embeddings: bool = False
) -> list[dict[str, Any]]:
    """Sort a module's trainable parameters into those that decay and those that do not.

    Not decayed: parameters marked `_no_weight_decay = True` (A_log, D, the bias of dt), parameters with fewer than two
    dimensions, and embedding tables unless `decay_embeddings`. A tied parameter appears once.

    Returns:
        One or two groups for a torch optimizer; none is empty.

    Raises:
        UserError: nothing in the module is trainable.
    """
    embeddings = {id(sub.weight) for sub in module.modules() if isinstance(sub, nn.Embedding | nn.EmbeddingBag)}
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        marked = getattr(parameter, "_no_weight_decay", False) or parameter.ndim < 2
        exempt = marked or (id(parameter) in embeddings and not decay_embeddings)
        (plain if exempt else decay).append(parameter)
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise UserError("the model has no trainable parameter", fix="unfreeze at least the head")
    return groups


def build_optimizer(
    module: nn.Module, settings: OptimSettings, *, groups: list[dict[str, Any]] | None = None
) -> torch.optim.AdamW:
    """AdamW over `param_groups(module)`, fused where this torch has it for the parameters' device.

    Each group carries `max_lr`, `min_lr`, `warmup_steps` and `warmup_fraction`, from which `fit` sets its `lr` before
    each step.

    Args:
        module: whose parameters are trained.
        settings: rates, decay and betas.
        groups: own groups instead, e.g. with a smaller `max_lr` for a pretrained backbone.
    """
    own = groups or param_groups(module, settings.weight_decay, decay_embeddings=settings.decay_embeddings)
    curve = {
        "max_lr": settings.lr,
        "min_lr": settings.min_lr,
        "warmup_steps": settings.warmup_steps,
        "warmup_fraction": settings.warmup_fraction,
    }
    own = [{**curve, **group} for group in own]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for group in own for p in group["params"])
    return torch.optim.AdamW(own, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)


@runtime_checkable
class Rates(Protocol):
    """The part of an application's configuration that AdamW is built from."""

    @property
    def lr(self) -> float:
        """The highest learning rate."""
        ...

    @property
    def min_lr_fraction(self) -> float:
        """Where the cosine ends, as a part of `lr`."""
        ...

    @property
    def warmup_steps(self) -> int | None:
        """Steps in which the rate rises; None leaves them to a share of the run."""
        ...

    @property
    def weight_decay(self) -> float:
        """The decay, on matrices alone."""
        ...

    @property
    def beta1(self) -> float:
        """The memory of the gradient."""
        ...

    @property
    def beta2(self) -> float:
        """The memory of its square."""
        ...


def configured(module: nn.Module, rates: Rates, *, warmup_fraction: float | None = None) -> torch.optim.AdamW:
    """AdamW as a configuration asks for it: a warm-up, then a cosine down to a part of the highest rate.

    Args:
        module: whose parameters are trained.
        rates: of the configuration.
        warmup_fraction: share of the run in which the rate rises where no `warmup_steps` are set; None: as usual.
    """
    settings = OptimSettings(
        lr=rates.lr,
        min_lr=rates.lr * rates.min_lr_fraction,
        warmup_steps=rates.warmup_steps,
        weight_decay=rates.weight_decay,
        betas=(rates.beta1, rates.beta2),
    )
    if warmup_fraction is not None:
        settings = replace(settings, warmup_fraction=warmup_fraction)
    return build_optimizer(module, settings)


def warmup_cosine(
    step: int, *, max_lr: float | int, warmup_steps: int, max_steps: int, min_lr: float | int = 0.0
) -> float:
    """The learning rate of optimizer step `step` (from 0): linear up to `max_lr`, then half a cosine to `min_lr`.

    The rate is `max_lr` at the end of the warm-up and `min_lr` from `max_steps` on.
    """
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return cosine(share, max_lr, min_lr)


def cosine(share: float | int, max_lr: float | int, min_lr: float | int) -> float:
    """Half a cosine from `max_lr` at share 0 to `min_lr` at share 1 and after."""
    return min_lr + 0.5 * (max_lr - min_lr) * (1.0 + math.cos(math.pi * min(1.0, max(0.0, share))))


def halving(share: float | int, max_lr: float | int, stretches: int) -> float:
    """`max_lr` in the first two of so many equal stretches of the run, and half of the one before in each later one.

    Source: the code of Informer (Zhou and others 2021), "type1", which long-horizon models have trained by since.
    """
    return max_lr * 0.5 ** max(min(int(share * stretches), stretches - 1) - 1, 0)
