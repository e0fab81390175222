"""The learning rate's curve, the run's length, and which parameters decay."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mamba_data_prep.errors import UserError
from mamba_training.optim import OptimSettings, build_optimizer, param_groups, warmup_cosine
from mamba_training.schedule import Schedule
from mamba_training.settings import RunSettings, parse_duration

GROUP = {"max_lr": 1.0, "min_lr": 0.1, "warmup_steps": 10, "warmup_fraction": 0.02}


@given(st.integers(1, 50), st.integers(60, 400))
@settings(deadline=None, max_examples=30)
def test_the_curve_rises_then_falls_from_peak_to_end(warmup: int, total: int) -> None:
    curve = [warmup_cosine(s, max_lr=2.0, warmup_steps=warmup, max_steps=total, min_lr=0.5) for s in range(total + 5)]
    assert curve[:warmup] == sorted(curve[:warmup])
    assert curve[warmup:] == sorted(curve[warmup:], reverse=True)
    assert max(curve) == curve[warmup - 1] == 2.0
    assert curve[total] == curve[-1] == 0.5
    assert curve[(warmup + total) // 2] == pytest.approx(1.25, abs=2.0 / (total - warmup))


@pytest.mark.parametrize("warmup", [0, 7])
def test_a_run_of_known_length_follows_warmup_cosine(warmup: int) -> None:
    schedule = Schedule(50, None)
    for step in range(55):
        expected = warmup_cosine(step, max_lr=1.0, warmup_steps=warmup, max_steps=50, min_lr=0.1)
        assert schedule.rate(step, 0.0, {**GROUP, "warmup_steps": warmup}) == pytest.approx(expected)


def test_a_halving_rate_is_halved_after_the_second_and_every_later_stretch() -> None:
    schedule = Schedule(40, None)
    rates = [schedule.rate(step, 0.0, {"max_lr": 0.8, "stretches": 4}) for step in range(41)]
    assert rates == [0.8] * 20 + [0.4] * 10 + [0.2] * 11


def simulate(seconds_per_step, limit: float) -> tuple[list[float], float]:
    """A run of `limit` seconds whose step `n` takes `seconds_per_step(n)`; its rates and its length."""
    schedule, seconds, rates, step = Schedule(None, limit), 0.0, [], 0
    while seconds < limit and (schedule.total is None or step < schedule.total):
        rates.append(schedule.rate(step, seconds, GROUP))
        seconds += seconds_per_step(step)
        step += 1
        schedule.pace(step, seconds)
        schedule = Schedule.resumed(schedule.state_dict(), None, limit)  # as if it were resumed at every step
    return rates, seconds


@pytest.mark.parametrize(
    "pace",
    [lambda n: 0.5, lambda n: 0.5 if n else 30.0, lambda n: 0.3 if n < 700 else 0.9, lambda n: 1.0 if n < 300 else 0.4],
    ids=["even", "slow first step", "slower later", "faster later"],
)  # fmt: skip
def test_with_a_time_limit_the_curve_ends_when_the_time_is_up(pace) -> None:
    rates, seconds = simulate(pace, 1200.0)
    assert 0.9 * 1200 < seconds <= 1201
    assert rates[-1] < 0.13
    assert max(rates) == pytest.approx(1.0)
    after = rates[rates.index(max(rates)) :]
    assert after == sorted(after, reverse=True)
    assert max(abs(a - b) for a, b in pairwise(after)) < 0.05


def test_with_both_limits_the_first_one_ends_the_run() -> None:
    fast, slow = Schedule(100, 1000.0), Schedule(100, 100.0)
    for step in range(1, 60):
        fast.pace(step, step * 1.0)
        slow.pace(step, step * 2.0)
    assert fast.total == 100
    assert 45 <= (slow.total or 0) <= 52


def test_longer_limits_draw_a_new_curve() -> None:
    state = Schedule(50, None).state_dict()
    assert Schedule.resumed(state, 50, None).total == 50
    assert Schedule.resumed(state, 80, None).total == 80


def test_what_decays(toy) -> None:
    model = toy.ToyModel()
    model.mixer.weight._no_weight_decay = True
    groups = param_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {group["weight_decay"]: sorted(names[id(p)] for p in group["params"]) for group in groups}
    assert found == {0.1: ["head.weight"], 0.0: ["embedding.weight", "head.bias", "mixer.bias", "mixer.weight"]}
    with_embeddings = param_groups(model, 0.1, decay_embeddings=True)
    assert sorted(names[id(p)] for p in with_embeddings[0]["params"]) == ["embedding.weight", "head.weight"]


def test_tied_and_frozen_parameters_are_counted_once_and_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    assert [len(group["params"]) for group in param_groups(model, 0.1)] == [1]
    with pytest.raises(UserError, match="no trainable parameter"):
        param_groups(model.requires_grad_(False), 0.1)


def test_the_optimizer_is_adamw_of_the_papers() -> None:
    optimizer = build_optimizer(nn.Linear(3, 3), OptimSettings(lr=0.1, min_lr=0.01))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(group["betas"] == (0.9, 0.95) and group["max_lr"] == 0.1 for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("2h", 7200), ("1h30m", 5400), ("1:30:00", 5400), ("00:20:00", 1200), ("2:05", 125),
     (45, 45), (1.5, 1.5), ("12", 12), (" 20M ", 1200), ("1d", 86400), ("1.5h", 5400)],
)  # fmt: skip
def test_lengths_of_time(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "20 minutes", "0", "-5", "0s", "inf", "nan", "1:99", "m", "2h-", "1e400"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"max_time is not a length of time(?s:.*)20m"):
        parse_duration(text)


@pytest.mark.parametrize(
    "wrong",
    [{"max_steps": 0}, {"max_steps": None}, {"grad_accumulation": 0}, {"val_every": 0}, {"val_every": 1.5},
     {"precision": "half"}, {"mode": "best"}, {"grad_clip": -1.0}, {"grad_clip": math.nan}, {"max_time": "soon"},
     {"checkpoint_every": 0}, {"checkpoint_every": "never"}, {"patience": 0}, {"seed": -1}, {"log_every": 0}],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_refused(tmp_path, wrong) -> None:
    with pytest.raises(UserError):
        RunSettings(**{"out": tmp_path, "max_steps": 5, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"lr": 0.0}, {"lr": math.nan}, {"min_lr": 1.0}, {"warmup_steps": -1}, {"warmup_fraction": 1.0},
              {"weight_decay": -0.1}], ids=str
)  # fmt: skip
def test_rates_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(UserError):
        OptimSettings(**wrong)


def test_devices_that_do_not_exist_are_refused(toy_run) -> None:
    with pytest.raises(UserError, match=r"cannot be used(?s:.*)auto"):
        toy_run(strategy="telepathy")
