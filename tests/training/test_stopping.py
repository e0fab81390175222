"""Ways in which a run ends before its last step: signals, time, patience, and steps that go wrong."""

from __future__ import annotations

import math
import os
import signal
import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from mamba_data_prep.errors import Interrupted, UserError
from mamba_training.checkpoint import read_checkpoint


def doing(model, at: int, what):
    """Make the model do `what` in batch `at`, before its training step."""
    inner = model.training_step

    def training_step(batch, batch_idx):
        if batch_idx == at:
            what()
        return inner(batch, batch_idx)

    model.training_step = training_step
    return model


def send(*numbers: signal.Signals):
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [3, 5], ids=["between validations", "where a validation is due"])
def test_a_signal_finishes_the_step_and_saves(toy_run, toy, rows, tmp_path, number, at: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"at step {at + 1}, saved(?s:.*)--resume") as caught:
        toy_run(doing(toy.ToyModel(), at, send(number)), val_every=3, checkpoint_every=100)
    assert caught.value.exit_code == 3
    assert signal.getsignal(number) == before
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["step"] == at + 1
    toy_run(resume=True, val_every=3)
    toy_run(out=tmp_path / "whole", val_every=3)
    columns = ("step", "loss", "val_loss")
    tables = [[[row[c] for c in columns] for row in rows(tmp_path / n / "metrics.csv")] for n in ("whole", "run")]
    assert tables[0] == tables[1]


def test_a_signal_during_validation_is_resumed_with_that_validation(toy_run, toy, rows, tmp_path) -> None:
    model = toy.ToyModel()
    inner = model.validation_step
    model.validation_step = lambda batch, batch_idx: (send(signal.SIGTERM)(), inner(batch, batch_idx))[1]
    with pytest.raises(Interrupted, match="at step 4"):
        toy_run(model, val_every=4)
    toy_run(resume=True, val_every=4)
    table = rows(tmp_path / "run/metrics.csv")
    assert [int(row["step"]) for row in table] == list(range(1, 13))
    assert [int(row["step"]) for row in table if row["val_loss"]] == [4, 8, 12]


def test_a_second_ctrl_c_leaves_at_once(toy_run, toy, tmp_path) -> None:
    model = doing(toy.ToyModel(), 7, send(signal.SIGINT, signal.SIGINT))
    with pytest.raises(Interrupted, match="left at once; its last checkpoint is whole"):
        toy_run(model, checkpoint_every=2)
    assert read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["step"] == 6
    assert toy_run(resume=True)[1].step == 12


@pytest.fixture
def toy_with_a_clock(toy, monkeypatch):
    """A function that makes a toy model, each step of which moves the run's clock on by the seconds given."""
    now = 0.0
    monkeypatch.setattr("mamba_training.loop.time", SimpleNamespace(monotonic=lambda: now))

    def make(seconds: float):
        model = toy.ToyModel()
        inner = model.training_step

        def training_step(batch, batch_idx):
            nonlocal now
            now += seconds
            return inner(batch, batch_idx)

        model.training_step = training_step
        return model

    return make


def test_the_curve_ends_when_the_time_is_up(toy_run, toy_with_a_clock, rows, tmp_path, capsys) -> None:
    _, result = toy_run(toy_with_a_clock(0.01), max_steps=None, max_time="3s")
    table = rows(tmp_path / "run/metrics.csv")
    rates = [float(row["lr"]) for row in table]
    assert result.status in ("finished", "time")
    assert 2.95 < result.seconds < 3.02
    assert max(rates) > 9e-3
    assert rates[-1] < 1e-3
    assert "at this pace the run ends at step" in capsys.readouterr().err
    seconds = [float(row["seconds"]) for row in table]
    assert seconds == sorted(seconds)


def test_the_clock_on_the_wall_ends_a_run(toy_run, rows, tmp_path) -> None:
    _, result = toy_run(max_steps=None, max_time=0.5)
    assert result.status in ("finished", "time")
    *earlier, _ = [float(row["seconds"]) for row in rows(tmp_path / "run/metrics.csv")]
    assert all(seconds <= 0.5 for seconds in earlier)


def test_time_counts_over_sessions(toy_run, toy_with_a_clock) -> None:
    with pytest.raises(Interrupted):
        toy_run(doing(toy_with_a_clock(0.02), 10, send(signal.SIGTERM)), max_steps=None, max_time=1.5)
    _, first = toy_run(toy_with_a_clock(0.02), max_steps=None, max_time=1.5, resume=True)
    _, again = toy_run(toy_with_a_clock(0.02), max_steps=None, max_time=1.5, resume=True)
    assert again.step == first.step
    assert 70 <= first.step <= 76
    assert 1.4 < first.seconds < 1.53


def test_patience_ends_a_run_and_keeps_the_best_weights(toy_run, toy, tmp_path) -> None:
    optim = toy.OptimSettings(lr=0.5, min_lr=0.5, warmup_steps=0)
    model, result = toy_run(toy.ToyModel(optim=optim), max_steps=500, val_every=2, patience=3, keep_best=True)
    assert result.status == "early"
    assert result.step == result.best_step + 6
    best = read_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert best["step"] == result.best_step
    assert all(torch.equal(value, best["model"][name]) for name, value in model.state_dict().items())
    assert toy_run(toy.ToyModel(), max_steps=500, val_every=2, patience=3, resume=True)[1].step == result.step


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_the_run_at_that_step(toy_run, toy, tmp_path, part: str) -> None:
    model = toy.ToyModel()
    inner = model.training_step

    def training_step(batch, batch_idx):
        loss = inner(batch, batch_idx)
        if batch_idx == 7:
            if part == "loss":
                return loss * math.nan
            loss.register_hook(lambda gradient: gradient * math.inf)
        return loss

    model.training_step = training_step
    with pytest.raises(UserError, match=f"the {part} of step 8 is not a finite number") as caught:
        toy_run(model, checkpoint_every=2)
    with safe_open(caught.value.path, "pt") as file:
        assert file.get_tensor("batch").shape == (3, toy.LENGTH)
        assert file.metadata()["step"] == "8"
    saved = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
    assert saved["step"] == 6
    assert all(bool(torch.isfinite(value).all()) for value in saved["model"].values())
    assert toy_run(resume=True)[1].step == 12


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
              torch.OutOfMemoryError("CUDA out of memory.")]
)  # fmt: skip
def test_too_little_memory_names_the_batch_and_a_smaller_setting(toy_run, toy, error) -> None:
    def fail():
        raise error

    with pytest.raises(UserError, match=r"batch x length = 3 x 12(?s:.*)batch size 2 with gradient accumulation 2"):
        toy_run(doing(toy.ToyModel(), 5, fail), checkpoint_every=2)
    assert toy_run(resume=True)[1].step == 12


def test_a_real_lack_of_memory_is_recognised(toy_run, toy) -> None:
    with pytest.raises(UserError, match="out of memory in a step of batch x length = 3 x 12"):
        toy_run(doing(toy.ToyModel(), 0, lambda: torch.empty(2**60)))


def test_a_killed_data_worker_is_named(toy_run, toy) -> None:
    def kill_a_worker():
        import multiprocessing

        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(Interrupted, match=r"data-loading process died: \w+(?s:.*)--resume"):
        toy_run(doing(toy.ToyModel(), 5, kill_a_worker), data=toy.ToyData(workers=2), max_steps=10_000)


def test_two_processes_do_not_share_a_run(toy_run, toy, tmp_path) -> None:
    told = []

    def train_there_too():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                toy_run(toy.ToyModel(), resume=True)
            except UserError as error:
                code = 0 if "another process is training" in str(error) else 2
            finally:
                os._exit(code)
        told.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
        toy_run(doing(toy.ToyModel(), 3, train_there_too))
    assert told == [0]


def test_a_training_loader_that_ends_is_a_bug_that_is_told(toy_run, toy) -> None:
    data = toy.ToyData()
    data.train_dataloader = lambda: torch.utils.data.DataLoader(toy.Tokens(), batch_size=20)
    with pytest.raises(RuntimeError, match="must be endless"):
        toy_run(data=data)
