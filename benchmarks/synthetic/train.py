"""Training one mixer on one task, and its accuracy at each length, long sequences fed in pieces."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mamba_kernels.blocks import Backbone, BackboneConfig
from torch import Tensor, nn

from benchmarks.synthetic.tasks import Task

MIXERS = {
    "mamba": ["mamba", "mamba"],
    "mamba2": ["mamba2", "mamba2"],
    "s4d": ["s4d", "s4d"],
    "attention": ["attention", "attention"],
    "hybrid": ["mamba", "attention"],
}
PIECE = 4096
"""Tokens fed at a time."""

MOST_WITH_ATTENTION = 2**14
"""Tokens; every piece of a layer of attention sees all before it, so its time grows with their square."""


@dataclass(frozen=True)
class Budget:
    """What a run may use.

    Attributes:
        steps: Most training steps.
        batch: Sequences a step.
        rate: Greatest learning rate, after a warm-up and before a cosine.
        width: Channels of the residual stream.
        every: Steps between looks at fresh sequences; a run ends once two in a row are all right.
        sequences: Sequences a length is tested on; fewer at great lengths.
        longest: Greatest length tested.
    """

    steps: int = 6000
    batch: int = 16
    rate: float = 2e-3
    width: int = 64
    every: int = 250
    sequences: int = 256
    longest: int = 2**20


class Tagger(nn.Module):
    """Embedding, backbone, and a linear layer over the vocabulary."""

    def __init__(self, mixer: str, tokens: int, width: int) -> None:
        super().__init__()
        self.layers = MIXERS[mixer]
        states = 64 if mixer == "s4d" else 16
        config = BackboneConfig(d_model=width, layers=self.layers, d_state=states, n_heads=4, chunk_size=None)
        self.embedding = nn.Embedding(tokens, width)
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


def accuracy(model: Tagger, task: Task, length: int, sequences: int, seed: int) -> float:
    """Share of answers that are right."""
    generator = torch.Generator().manual_seed(seed)
    group = max(1, min(sequences, 2**17 // length))
    right = total = 0
    with torch.inference_mode():
        for _ in range(-(-sequences // group)):
            ids, answers = task.make(group, length, generator)
            right += int((model(ids, answers.shape[1]).argmax(-1) == answers).sum())
            total += answers.numel()
    return right / total


def train(mixer: str, task: Task, budget: Budget, seed: int = 0) -> dict[str, Any]:
    """Trains until the task is solved or the steps are used up, then tests each length.

    Returns:
        steps, seconds, parameters, and `accuracy` by length; None where attention was spared the length.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, start, solved, step = Tagger(mixer, task.tokens, budget.width), time.perf_counter(), 0, 0
    optimizer = torch.optim.AdamW(_groups(model), lr=budget.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, budget.rate, budget.steps, pct_start=0.05)
    for step in range(1, budget.steps + 1):
        ids, answers = task.make(budget.batch, task.length, generator)
        loss = F.cross_entropy(model(ids, answers.shape[1]).flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % budget.every == 0:
            right = accuracy(model, task, task.length, budget.sequences, seed=step)
            print(f"  {mixer}, step {step}: loss {loss.item():.3f}, right {right:.3f}", flush=True)
            solved = solved + 1 if right == 1 else 0
            if solved == 2:
                break
    seconds = time.perf_counter() - start
    found = {str(length): _tested(model, task, length, budget) for length in task.lengths if length <= budget.longest}
    parameters = sum(p.numel() for p in model.parameters())
    return {"steps": step, "seconds": round(seconds, 1), "parameters": parameters, "accuracy": found}


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for the matrices only."""
    spared = [p for p in model.parameters() if getattr(p, "_no_weight_decay", False) or p.ndim < 2]
    others = [p for p in model.parameters() if not (getattr(p, "_no_weight_decay", False) or p.ndim < 2)]
    return [{"params": others, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]


def _tested(model: Tagger, task: Task, length: int, budget: Budget) -> float | None:
    if "attention" in model.layers and length > MOST_WITH_ATTENTION:
        return None
    sequences = min(budget.sequences, max(8, 2**21 // length))
    return accuracy(model, task, length, sequences, seed=10**6 + length)
