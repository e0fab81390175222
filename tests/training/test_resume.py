"""A resumed run goes on exactly where it was: same weights, same optimizer, same batches, same random numbers."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor

from mamba_data_prep.errors import UserError
from mamba_training.checkpoint import read_checkpoint


def same(one: object, two: object) -> bool:
    """Whether two checkpoints' values are identical to the last bit."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


class Stop(RuntimeError):
    """Ends a run without warning, as a crash would."""


def crash_at(model, step: int):
    """Make the model fail in its `step`-th batch."""
    inner = model.training_step

    def training_step(batch, batch_idx):
        if batch_idx == step:
            raise Stop
        return inner(batch, batch_idx)

    model.training_step = training_step
    return model


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without run-time types: their checker draws from Python's random numbers, which are compared here."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_crashed_run_resumes_bit_for_bit(toy_run, toy, rows, tmp_path, workers: int, accumulation: int) -> None:
    settings = {"grad_accumulation": accumulation, "val_every": 4, "checkpoint_every": 3, "max_steps": 14}
    whole, _ = toy_run(data=toy.ToyData(workers=workers), out=tmp_path / "whole", **settings)
    torch.manual_seed(0)
    broken = crash_at(toy.ToyModel(), 10 * accumulation + accumulation // 2)
    with pytest.raises(Stop):
        toy_run(broken, data=toy.ToyData(workers=workers), **settings)
    resumed, result = toy_run(data=toy.ToyData(workers=workers), resume=True, **settings)
    assert result.step == 14
    one, two = (read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "run"))
    for key in ("model", "optimizers", "randomness", "step"):
        assert same(one[key], two[key]), key
    assert resumed.seen[0][0] == 9 * accumulation
    assert resumed.seen == whole.seen[9 * accumulation :]
    columns = ("step", "tokens", "lr", "grad_norm", "loss", "val_loss")
    tables = [[tuple(row[c] for c in columns) for row in rows(tmp_path / n / "metrics.csv")] for n in ("whole", "run")]
    assert tables[0] == tables[1]


def test_other_settings_are_refused_by_name(toy_run) -> None:
    toy_run(max_steps=2, config={"optim": {"lr": 0.1}, "train": {"max_steps": 2}})
    with pytest.raises(UserError, match=r"optim\.lr was 0\.1 and is now 0\.2"):
        toy_run(max_steps=2, resume=True, config={"optim": {"lr": 0.2}, "train": {"max_steps": 2}})
    _, result = toy_run(max_steps=5, resume=True, config={"optim": {"lr": 0.1}, "train": {"max_steps": 5}})
    assert result.step == 5


def test_a_full_folder_is_refused_without_resume(toy_run) -> None:
    toy_run(max_steps=2)
    with pytest.raises(UserError, match=r"not empty(?s:.*)--resume"):
        toy_run(max_steps=2)


def test_resume_without_a_checkpoint_starts_from_zero(toy_run, capsys) -> None:
    _, result = toy_run(max_steps=2, resume=True)
    assert result.step == 2
    assert "no checkpoint yet" in capsys.readouterr().err
