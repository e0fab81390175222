"""Training one mixer on one task, and its accuracy at each length, long sequences fed in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.synthetic.tasks import Maker, Task
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_kernels.blocks.mamba import SelectiveSSM
from mamba_kernels.blocks.mamba2 import GatedSSD, Mamba2Mixer

MIXERS = {
    "mamba": ["mamba", "mamba"],
    "mamba2": ["mamba2", "mamba2"],
    "s4d": ["s4d", "s4d"],
    "attention": ["attention", "attention"],
    "hybrid": ["mamba", "attention"],
}
PIECE = 4096
"""Tokens fed at a time."""

HOPELESS = 0.2
"""Share of right answers below which a run is not taken further (`patience`, greater lengths); chance is 1/16."""

MOST_WITH_ATTENTION = 2**12
"""Tokens; every piece of a layer of attention sees all before it, so its time grows with their square."""

RATES = {"attention": 1e-3, "hybrid": 1e-3}
"""Learning rates of the mixers that do not take their budget's."""

STILL = 20.0
"""Step sizes below exp(-STILL), one part in 5e8, count as no step at all."""


@dataclass(frozen=True)
class Budget:
    """What a run may use.

    Attributes:
        steps: Most training steps.
        seconds: Most processor seconds of training.
        solved: Loss on fresh sequences, in nats, at which a run ends when it stays below twice in a row.
        quiet: Weight of the penalty on the logarithm of step sizes; none where it is 0.
        batch: Sequences a step.
        states: States a channel of the state space mixers.
        rate: Learning rate after a warm-up, constant as in the paper.
        patience: Share of the budget after which a run ends that is hopeless at the trained length.
        cooldown: Share of the budget at whose end the rate has fallen to zero in a straight line.
        width: Channels of the residual stream.
        every: Steps between looks at fresh sequences of the trained length.
        sequences: Sequences a length is tested on; fewer at great lengths.
        longest: Greatest length tested.
    """

    steps: int
    seconds: float
    solved: float
    quiet: float = 0.0
    batch: int = 8
    states: int = 16
    rate: float = 3e-3
    patience: float = 1.0
    cooldown: float = 0.0
    width: int = 64
    every: int = 100
    sequences: int = 256
    longest: int = 2**20


BUDGETS = {
    "induction": Budget(steps=3000, seconds=150, solved=2e-5, quiet=1e-3),
    "copying": Budget(
        steps=30_000, seconds=1200, solved=0.01, batch=16, rate=2e-3, every=250, patience=0.3, cooldown=0.6
    ),
}

OWN = {"induction attention": {"steps": 40_000, "seconds": 600.0, "batch": 32, "every": 500}}
"""What differs for one run: with eight questions a step attention learnt nothing in the time that Mamba takes."""


class Tagger(nn.Module):
    """Embedding, backbone, and a linear layer over the vocabulary."""

    def __init__(self, mixer: str, tokens: int, width: int, states: int = 16) -> None:
        super().__init__()
        self.layers = MIXERS[mixer]
        config = BackboneConfig(d_model=width, layers=self.layers, d_state=states, n_heads=4, chunk_size=None)
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(
            self.embedding.weight, std=0.02
        )  # so that the residual stream tells of the mixers, not of itself
        self.backbone = Backbone(config)
        self.head = nn.Linear(width, tokens)

    def forward(self, ids: Tensor, answers: int) -> Tensor:
        """Logits (B, answers, tokens) of the last positions, fed in pieces that hand on their state."""
        state = None
        kept = ids.new_zeros(0)
        for piece in ids.split(PIECE, dim=1):
            hidden, state = self.backbone(self.embedding(piece), state)
            kept = hidden if kept.numel() == 0 else torch.cat([kept[:, -answers:], hidden], dim=1)
        return self.head(kept[:, -answers:])


def examine(model: Tagger, make: Maker, length: int, sequences: int, seed: int) -> tuple[float, float]:
    """Share of answers that are right, and the mean loss in nats, on fresh sequences."""
    generator = torch.Generator().manual_seed(seed)
    group = min(sequences, max(8, 2**17 // length))
    right = total = 0
    loss = 0.0
    with torch.inference_mode():
        for _ in range(-(-sequences // group)):
            ids, answers = make(group, length, generator)
            logits = model(ids, answers.shape[1])
            right += int((logits.argmax(-1) == answers).sum())
            loss += F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="sum").item()
            total += answers.numel()
    return right / total, loss / total


def train(mixer: str, task: Task, budget: Budget, seed: int = 0) -> dict[str, Any]:
    """Trains until the task is solved or the budget is used up, then tests each length.

    Returns:
        steps, seconds of the processor and of wall clock, parameters, the last loss on fresh sequences, and the
        accuracy by length of each test; None at the lengths it was spared.
    """
    torch.manual_seed(seed)
    model = Tagger(mixer, task.tokens, budget.width, budget.states)
    start, processor_start = time.perf_counter(), time.process_time()
    steps, loss = _optimise(model, mixer, task, budget, seed)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "processor_seconds": round(time.process_time() - processor_start),
        "accuracy": {test: _by_length(model, task, make, budget) for test, make in task.tests.items()},
        "seconds_with_tests": round(time.perf_counter() - start),
        "loss": float(f"{loss:.2g}"),
    }


def _optimise(model: Tagger, mixer: str, task: Task, budget: Budget, seed: int) -> tuple[int, float]:
    """Steps made, and the last loss on fresh sequences."""
    generator, start = torch.Generator().manual_seed(seed), time.process_time()
    rate = RATES.get(mixer, budget.rate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-16, weight_decay=0)
    step_sizes = _watch_step_sizes(model)
    solved, step, loss, lengths = 0, 0, float("nan"), (*task.shorter, task.length)
    for step in range(1, budget.steps + 1):
        ids, answers = task.practice(budget.batch, lengths[step % len(lengths)], generator)
        objective = F.cross_entropy(model(ids, answers.shape[1]).flatten(0, 1), answers.flatten())
        for sizes in step_sizes:
            objective = objective + budget.quiet * F.softplus(sizes + STILL).mean()
        step_sizes.clear()
        used = max(step / budget.steps, (time.process_time() - start) / budget.seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 100, (1 - used) / budget.cooldown if budget.cooldown else 1.0)
        optimizer.zero_grad()
        objective.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % budget.every == 0:
            right, loss = examine(model, task.validation, task.length, budget.sequences, seed=step)
            print(f"  {mixer}, step {step}: right {right:.3f}, loss {loss:.2g}", flush=True)
            solved = solved + 1 if loss < budget.solved else 0
            if solved == 2 or (used > budget.patience and right < HOPELESS):
                break
        if used >= 1:
            break
    return step, loss


def _watch_step_sizes(model: nn.Module) -> list[Tensor]:
    """A list to which each forward pass with gradients adds every selective layer's step sizes, before softplus.

    For small steps that is their logarithm. (B, L, D) of a `mamba` mixer, (B, L, heads) of a `mamba2` mixer.
    """
    found: list[Tensor] = []

    def watch(layer: nn.Linear, sizes: Callable[[Tensor], Tensor]) -> None:
        def keep(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            if torch.is_grad_enabled():
                found.append(sizes(output))

        layer.register_forward_hook(keep)

    for module in model.modules():
        if isinstance(module, SelectiveSSM):
            ssm, rank = module, module.config.rank
            watch(ssm.x_proj, lambda y, ssm=ssm, rank=rank: ssm.dt_proj(y[..., :rank]))
        elif isinstance(module, Mamba2Mixer) and isinstance(module.ssm, GatedSSD):
            bias, heads = module.ssm.dt_bias, module.ssm.config.ssd_heads
            watch(module.in_proj, lambda y, bias=bias, heads=heads: y[..., -heads:] + bias)
    return found


def _by_length(model: Tagger, task: Task, make: Maker, budget: Budget) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    hopeless = False
    for length in task.lengths:
        if length > budget.longest:
            break
        if hopeless or ("attention" in model.layers and length > MOST_WITH_ATTENTION):
            found[str(length)] = None
            continue
        sequences = min(budget.sequences, max(8, 2**18 // length))
        found[str(length)], _ = examine(model, make, length, sequences, seed=10**6 + length)
        hopeless = length > task.length and (found[str(length)] or 0) < HOPELESS
    return found
