"""Kills a training run at random moments and resumes it until it is done; reports as JSON how often.

    python run_storm.py FOLDER KILLS WORKERS

An uninterrupted run of the same settings is left in FOLDER/whole, the killed one in FOLDER/killed. One parent imports
everything, so that each child (a fork) starts training at once. A child is killed a moment after a step of the parent's
choice, and waits for that rather than end its training, so that every kill falls into a training on any machine.
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

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import torch
from toy import ToyData, ToyModel

from mamba_training.checkpoint import CheckpointStore
from mamba_training.run import fit
from mamba_training.settings import RunSettings


class Doomed(ToyModel):
    """Is killed within some milliseconds of the step `at`, if it is given one."""

    at: int | None = None

    def on_train_batch_end(self, *arguments: Any) -> None:
        if self.at is None or self.trainer.global_step < self.at:
            return
        if self.trainer.global_step == self.at:
            threading.Timer(random.uniform(0, 0.05), os.kill, (os.getpid(), signal.SIGKILL)).start()
        if self.trainer.global_step >= self.trainer.max_steps - 1:
            time.sleep(60)


def train(folder: Path, workers: int, steps: int, at: int | None) -> None:
    torch.manual_seed(0)
    settings = RunSettings(
        out=folder,
        max_steps=steps,
        grad_accumulation=2,
        val_every=7,
        checkpoint_every=3,
        resume=folder.exists(),
        progress=False,
        keep_best=False,
    )
    model = Doomed()
    model.at = at
    fit(model, ToyData(workers=workers), settings, config={"workers": workers})


def start(folder: Path, workers: int, steps: int, at: int | None = None) -> int:
    child = os.fork()
    if child:
        return child
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        train(folder, workers, steps, at)
    except BaseException:
        print(traceback.format_exc(), flush=True)
        os._exit(1)
    os._exit(0)


def main(folder: Path, kills: int, workers: int) -> dict[str, int]:
    random.seed(kills)
    steps = 60 * max(kills, 3)
    _, status = os.waitpid(start(folder / "whole", workers, steps), 0)
    report = {"kills": 0, "mid_run": 0, "failures": int(status != 0), "steps": steps}
    store = CheckpointStore(folder / "killed" / "checkpoints")
    done = 0
    while report["kills"] < kills:
        at = done + random.randrange(4, max(6, steps // (kills + 1)))
        _, status = os.waitpid(start(folder / "killed", workers, steps, at), 0)
        report["failures"] += not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
        found = store.load_latest(print)
        report["kills"] += 1
        done = 0 if found is None else int(found["step"])
        report["mid_run"] += 0 < done < steps
    _, status = os.waitpid(start(folder / "killed", workers, steps), 0)
    report["failures"] += status != 0
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
