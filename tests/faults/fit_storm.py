"""Kills `tsmamba fit` while it trains and goes on with `--resume` until it is done; reports as JSON what it saw.

    python fit_storm.py FOLDER KILLS METHOD

An uninterrupted run is left in FOLDER/whole, the killed one in FOLDER/killed. One parent imports everything, so that
each child (a fork) starts at once; a child counts its training steps into FOLDER/steps, and is killed a moment after as
many steps as the parent chose.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import tsmamba.evaluation.selection
import tsmamba.fitting.training
import tsmamba.methods.methods
from mamba_training.checkpoint import CheckpointStore
from tsmamba.commands.fit import run_fit
from tsmamba.config import FitConfig, load_config

SMALL = {
    "lookback": 48, "network__d_model": 8, "network__n_layers": 1, "network__d_state": 4, "network__patch": 8,
    "network__d_feedforward": 8, "network__stride": 8, "train__epochs": 1, "train__least_steps": 60,
    "train__most_steps": 60, "train__validations": 20, "train__batch_size": 16,
}  # fmt: skip


BETWEEN = 6
"""Steps after which a checkpoint is there for certain: a validation comes every third."""


def small(name: str, **changes: object) -> FitConfig:
    return load_config(name, **{**SMALL, **changes})


def write_series(path: Path) -> None:
    """Too few hours for a model to be kept as it was backtested: it is trained twice."""
    at = np.arange(300)
    values = 20 + 5 * np.sin(at / 24 * 2 * np.pi) + np.random.default_rng(0).normal(0, 1, len(at))
    times = np.datetime64("2024-01-01T00") + at
    path.write_text("ds,y\n" + "".join(f"{t},{v:.3f}\n" for t, v in zip(times, values, strict=True)))


def start(folder: Path, name: str, method: str, steps: int | None = None) -> int:
    child = os.fork()
    if child:
        return child
    CountedSteps.until = steps
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        reading = {"settings": ()}
        out = folder / name
        run_fit(
            csv=folder / "series.csv",
            reading=reading,
            out=out,
            horizon=6,
            method=method,
            resume=out.exists(),
            quiet=True,
        )
    except BaseException:
        print(traceback.format_exc(), flush=True)
        os._exit(1)
    os._exit(0)


def steps_of(folder: Path) -> int:
    """Steps that the children have trained since the last call."""
    path = folder / "steps"
    count = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    return count


def saved_steps(run: Path) -> int:
    """Steps in the last checkpoints of a run's trainings."""
    stores = [CheckpointStore(path) for path in run.glob("training/*/*/**/checkpoints")]
    found = [store.load_latest(print) for store in stores]
    return sum(int(one["step"]) for one in found if one is not None)


def main(folder: Path, kills: int, method: str) -> dict[str, int]:
    random.seed(kills)
    write_series(folder / "series.csv")
    _, status = os.waitpid(start(folder, "whole", method), 0)
    report = {"failures": int(status != 0), "steps": steps_of(folder), "kills": 0, "mid_run": 0, "repeated": 0}
    done = 0
    for _ in range(kills):
        room = max((report["steps"] - done) // (kills - report["kills"] + 1), 2 * BETWEEN)
        _, status = os.waitpid(start(folder, "killed", method, random.randrange(BETWEEN, room)), 0)
        report["failures"] += not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
        report["kills"] += 1
        saved, trained = saved_steps(folder / "killed"), steps_of(folder)
        report["mid_run"] += 0 < saved < report["steps"]
        report["repeated"] += max(done + trained - saved, 0)
        done = saved
    _, status = os.waitpid(start(folder, "killed", method), 0)
    report["failures"] += status != 0
    return {**report, "last": steps_of(folder), "left": report["steps"] - done}


class CountedSteps(tsmamba.fitting.training.TellSteps):
    """Adds one byte to the file `counter` for every training step."""

    counter: Path
    until: int | None = None
    """The step of this process after which it is killed."""
    _steps = 0

    def on_train_batch_end(self, *arguments: Any, **named: Any) -> None:
        with self.counter.open("ab") as file:
            file.write(b".")
        super().on_train_batch_end(*arguments, **named)
        CountedSteps._steps += 1
        if self.until is not None and CountedSteps._steps == self.until:
            threading.Timer(random.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGKILL)).start()
        if self.until is not None and CountedSteps._steps >= self.until + 2:
            time.sleep(60)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    tsmamba.methods.methods.load_config, tsmamba.evaluation.selection.BASELINES = small, ("naive", "ridge")
    CountedSteps.counter, tsmamba.fitting.training.TellSteps = Path(sys.argv[1], "steps"), CountedSteps
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
