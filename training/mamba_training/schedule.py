"""How far a run has come: a share from 0 to 1 as a function of the step, also when only the time is given.

With `max_steps` the share is `step / max_steps`. With `max_time` the number of steps is not known at the start: it is
estimated from the first steps' pace, and corrected when the pace changes. A correction bends the line at the present
step and never makes it jump, so the learning rate stays smooth and reaches its end when the time is up. The bends are
kept in the checkpoint, so a resumed run follows the same curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mamba_training.optim import cosine, halving

_TOLERANCE = 0.03  # a smaller change of the estimate is noise
_MEASURE_STEPS, _MEASURE_SHARE, _REVISE_SHARE = 5, 0.02, 0.1


@dataclass
class Schedule:
    """The run's length and its bends.

    Args:
        max_steps: the limit in steps that the user gave, or None.
        max_seconds: the limit in time that the user gave, or None.
        total: the step at which the run ends; None until the pace is known.
        bends: (step, share) from which the share goes straight to (total, 1).
        revised_at: seconds of the run at the latest estimate.
        pace_from: (step, seconds) where the measured stretch begins, after the first slow steps.
    """

    max_steps: int | None
    max_seconds: float | int | None
    total: int | None = None
    bends: list[tuple[int, float]] = field(default_factory=lambda: [(0, 0.0)])
    revised_at: float | int = 0.0
    pace_from: tuple[int, float | int] | None = None

    def __post_init__(self) -> None:
        if self.total is None:
            self.total = self.max_steps

    def share(self, step: int) -> float:
        """The share of the run that is done before `step`, in [0, 1]; 0 while the length is unknown."""
        if self.total is None:
            return 0.0
        for (start, done), (end, goal) in pairwise([*self.bends, (self.total, 1.0)]):
            if step < end:
                return done + (goal - done) * (step - start) / (end - start)
        return 1.0

    def rate(self, step: int, seconds: float | int, group: Mapping[str, Any]) -> float | None:
        """The learning rate of `step`: `warmup_cosine` along this run's share, or `halving` where a group has that.

        While the length is unknown the warm-up is under way: by steps if it was given in steps, else by time.

        Args:
            step: optimizer steps done before this one.
            seconds: of the run so far.
            group: an optimizer's group, with `max_lr`, `min_lr` and `warmup_steps` or `warmup_fraction`; or with
                `max_lr` and `stretches`, after each of which the rate is halved.

        Returns:
            The rate; None if the group has no curve of its own.
        """
        if "max_lr" not in group:
            return None
        if "stretches" in group:
            return halving(self.share(step), group["max_lr"], group["stretches"])
        peak, steps, fraction = group["max_lr"], group.get("warmup_steps"), group.get("warmup_fraction") or 0.0
        if self.total is None:
            passed = seconds / (self.max_seconds or 1.0)
            ramp = passed / max(fraction, 1e-9) if steps is None else (step + 1) / max(1, steps)
            return peak * min(1.0, max(ramp, 1e-3))
        steps = int(fraction * self.total) if steps is None else steps
        if self.max_steps is None:
            steps = min(steps, self.total // 5)  # a short time must not be all warm-up
        if step < steps:
            return peak * (step + 1) / steps
        start = self.share(steps)
        return cosine((self.share(step) - start) / max(1e-12, 1.0 - start), peak, group.get("min_lr", 0.0))

    def pace(self, step: int, seconds: float | int, reserve: float | int = 0.0) -> bool:
        """Take note that `step` steps took `seconds` of the run's time; estimate the end when it is time for that.

        Args:
            step: optimizer steps done.
            seconds: of the run, earlier sessions, validations and checkpoints included.
            reserve: seconds to leave for the final validation.

        Returns:
            Whether the run's length was set or changed, which is worth a line in the log.
        """
        if self.max_seconds is None or step < 2:
            return False
        if self.pace_from is None:
            self.pace_from = (step, seconds)
            return False
        first_step, first_seconds = self.pace_from
        if self.revised_at == 0.0:
            ready = step - first_step >= _MEASURE_STEPS and seconds - first_seconds >= _MEASURE_SHARE * self.max_seconds
        else:
            ready = seconds - self.revised_at >= _REVISE_SHARE * self.max_seconds
        if not ready or (self.total is not None and step >= self.total):
            return False
        self.revised_at = seconds
        per_step = (seconds - first_seconds) / (step - first_step)
        return self._revise(step, step + int((self.max_seconds - seconds - reserve) / per_step))

    def _revise(self, step: int, estimate: int) -> bool:
        estimate = max(estimate, step + 1)
        if self.max_steps is not None:
            estimate = min(estimate, self.max_steps)
        if self.total is not None and abs(estimate - self.total) <= _TOLERANCE * (self.total - step):
            return False
        if self.total is not None:
            self.bends.append((step, self.share(step)))
        changed, self.total = estimate != self.total, estimate
        return changed

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**vars(self), "bends": [list(bend) for bend in self.bends]}

    @classmethod
    def resumed(cls, state: dict[str, Any], max_steps: int | None, max_seconds: float | int | None) -> Schedule:
        """The recorded schedule, or a new one when the user gave other limits than the recorded ones."""
        if (state["max_steps"], state["max_seconds"]) == (max_steps, max_seconds):
            pace_from, bends = state["pace_from"], [(int(step), float(share)) for step, share in state["bends"]]
            return cls(**{**state, "bends": bends, "pace_from": None if pace_from is None else tuple(pace_from)})
        return cls(max_steps, max_seconds)
