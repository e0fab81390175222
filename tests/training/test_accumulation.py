"""A step over several batches, or several processes, is the step over all their tokens at once."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def ragged(toy):
    """The toy with a padded last half in every other batch, so that batches differ in their tokens."""

    class Ragged(toy.ToyModel):
        def loss(self, ids):
            targets = ids[:, 1:].clone()
            if ids.sum() % 2:
                targets[:, 3:] = -100
            return torch.nn.functional.cross_entropy(self(ids[:, :-1]).flatten(0, 1), targets.flatten())

        def tokens_in(self, batch):
            return len(batch) * (3 if batch.sum() % 2 else 11)

    return Ragged


def test_accumulated_losses_are_averaged_by_tokens(toy_run, toy, rows, tmp_path) -> None:
    model_class = ragged(toy)
    torch.manual_seed(0)
    model = model_class(dropout=0.0)
    torch.manual_seed(0)
    twin = model_class(dropout=0.0)
    toy_run(model, grad_accumulation=4, max_steps=1, grad_clip=None, val_every=None)
    batches = [ids for _, ids in zip(range(4), toy.ToyData().batches(), strict=False)]
    counts = [twin.tokens_in(ids) for ids in batches]
    assert len(set(counts)) == 2
    losses = torch.stack([twin.loss(ids) for ids in batches])
    mean = (losses * torch.tensor(counts)).sum() / sum(counts)
    mean.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in twin.parameters()])
    (row,) = rows(tmp_path / "run/metrics.csv")
    assert float(row["loss"]) == pytest.approx(float(mean.detach()), rel=1e-5)
    assert float(row["grad_norm"]) == pytest.approx(float(norm), rel=1e-5)
    assert int(row["tokens"]) == sum(counts)
    optimizer = twin.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = float(row["lr"])
    optimizer.step()
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_to_its_norm(toy_run, toy) -> None:
    norms = []

    class Watched(toy.ToyModel):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()])))

    toy_run(Watched(), grad_clip=1e-2, max_steps=3)
    assert norms == pytest.approx([1e-2] * 3, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp"])
def test_two_processes_train_as_one(toy_run, toy, rows, tmp_path, strategy: str) -> None:
    program = Path(__file__).with_name("two_ranks.py")
    folder = tmp_path / "two"
    for steps, more in ((7, []), (12, ["--resume"])):
        command = [sys.executable, str(program), str(folder), str(steps), strategy, *more]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    model = toy.ToyModel(dropout=0.0)
    settings = {"val_every": 4, "grad_accumulation": 2}
    toy_run(model, data=toy.ToyData(batch_size=4), max_steps=7, **settings)
    toy_run(toy.ToyModel(dropout=0.0), data=toy.ToyData(batch_size=4), max_steps=12, resume=True, **settings)
    with (folder / "metrics.csv").open(newline="") as file:
        two = list(csv.DictReader(file))
    one = rows(tmp_path / "run/metrics.csv")
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for name in ("tokens", "loss", "grad_norm", "lr"):
        found, expected = ([float(row[name]) for row in table] for table in (two, one))
        assert found == pytest.approx(expected, rel=1e-4), name
