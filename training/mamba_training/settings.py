"""What one training run is told: where it writes, how long it goes on, on which devices, how often it looks up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mamba_data_prep.errors import UserError

PRECISIONS = ("auto", "32-true", "bf16-mixed", "bf16-true", "64-true")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]?\d(?:\.\d+)?)", re.ASCII)


def parse_duration(value: str | float | int, *, name: str = "max_time") -> float:
    """Read a length of time: `"90s"`, `"20m"`, `"2h"`, `"1h30m"`, `"1:30:00"`, or a number of seconds.

    Args:
        value: what the user wrote.
        name: the setting's name, for the message.

    Returns:
        Seconds, above 0.

    Raises:
        UserError: it is none of these, or not above 0.
    """
    seconds = _seconds(str(value).strip().lower())
    if seconds is None or not 0 < seconds < float("inf"):
        raise UserError(
            f"{name} is not a length of time",
            found=value,
            accepted='"90s", "20m", "2h", "1h30m", "1:30:00" or seconds above 0',
            fix=f"for twenty minutes write {name}=20m",
        )
    return seconds


def _seconds(text: str) -> float | None:
    if _PARTS.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", text))
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600.0 + int(minutes) * 60.0 + float(seconds)
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class RunSettings:
    """One run's settings; a frozen value, checked when it is made.

    Args:
        out: the run folder (`config.yaml`, `metrics.csv`, `checkpoints/`, `model/`).
        max_steps: optimizer steps in all; None when only the time is limited.
        max_time: time in all, resumes included (see `parse_duration`); with both, whichever comes first.
        seed: seeds python, numpy and torch when the run starts.
        accelerator, devices, strategy, num_nodes: as Lightning's Trainer takes them.
        precision: "auto" is bf16-mixed on hardware that multiplies in bf16 (GPU or CPU), and 32-true elsewhere.
        context_parallel: neighbouring ranks that share every sequence (see `context_parallel`).
        grad_accumulation: batches per optimizer step; their losses are averaged by tokens.
        grad_clip: largest norm of the gradient; None or 0 leaves it alone.
        val_every: validate every so many steps (int), or after every such share of the run (float below 1);
            None: only at the end. The last step is always validated.
        val_batches: at most so many batches per validation; None: all.
        checkpoint_every: save every so many steps (int) or so often (a length of time, "1m").
        log_every: steps between two rows of `metrics.csv`; steps with a validation always have a row.
        monitor, mode: the validation metric that says which checkpoint is best, and whether "min" or "max" is best.
        patience: stop after so many validations in a row without a new best; None: never.
        keep_best: when the run has ended, put the best checkpoint's weights into the module.
        resume: go on from the last checkpoint in `out`.
        until: the share of the run at which this stage of it ends; another `fit` goes on, with other data perhaps.
        progress: show progress on stderr.
        progress_every: seconds between two progress lines where stderr is no terminal.

    Raises:
        UserError: a value is out of its range, or nothing ends the run.
    """

    out: Path
    max_steps: int | None = None
    max_time: str | float | int | None = None
    seed: int = 0
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "auto"
    context_parallel: int = 1
    grad_accumulation: int = 1
    grad_clip: float | int | None = 1.0
    val_every: int | float | None = None
    val_batches: int | None = None
    checkpoint_every: int | str | float = "1m"
    log_every: int = 1
    monitor: str = "val_loss"
    mode: str = "min"
    patience: int | None = None
    keep_best: bool = True
    resume: bool = False
    until: float = 1.0
    progress: bool = True
    progress_every: float | int = 10.0

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_time is None:
            raise UserError("nothing ends this run", accepted="max_steps, max_time or both", fix="give max_steps=N")
        for name, least in (("max_steps", 1), ("grad_accumulation", 1), ("val_batches", 1), ("log_every", 1),
                            ("patience", 1), ("num_nodes", 1), ("context_parallel", 1), ("seed", 0)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} is too small", found=value, accepted=f"a whole number, at least {least}")
        if self.val_every is not None and self.val_every <= 0:
            raise UserError("val_every is too small", found=self.val_every, accepted="steps, or a share below 1")
        if isinstance(self.val_every, float) and self.val_every >= 1 and not self.val_every.is_integer():
            raise UserError("val_every is neither", found=self.val_every, accepted="whole steps, or a share below 1")
        if self.precision not in PRECISIONS:
            raise UserError("unknown precision", found=self.precision, accepted=", ".join(PRECISIONS))
        if self.mode not in ("min", "max"):
            raise UserError("unknown mode", found=self.mode, accepted="min or max")
        if self.grad_clip is not None and not 0 <= self.grad_clip < float("inf"):
            raise UserError("grad_clip is out of range", found=self.grad_clip, accepted="a number above 0, or None")
        if self.max_time is not None:
            parse_duration(self.max_time)
        if isinstance(self.checkpoint_every, int) and self.checkpoint_every < 1:
            raise UserError("checkpoint_every is too small", found=self.checkpoint_every, accepted="at least 1 step")
        if not isinstance(self.checkpoint_every, int):
            parse_duration(self.checkpoint_every, name="checkpoint_every")

    @property
    def max_seconds(self) -> float | None:
        """The time limit in seconds, or None."""
        return None if self.max_time is None else parse_duration(self.max_time)
