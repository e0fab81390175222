"""Kills a training run at random moments and resumes it until it is done; reports as JSON how often.

    python run_storm.py FOLDER KILLS WORKERS

An uninterrupted run of the same settings is left in FOLDER/whole, the killed one in FOLDER/killed. One parent imports
everything, so that each child (a fork) starts training at once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import torch
from toy import ToyData, ToyModel

from mamba_training.checkpoint import CheckpointStore
from mamba_training.run import fit
from mamba_training.settings import RunSettings


def train(folder: Path, workers: int, steps: int) -> None:
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
    fit(ToyModel(), ToyData(workers=workers), settings, config={"workers": workers})


def start(folder: Path, workers: int, steps: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        train(folder, workers, steps)
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
    while report["kills"] < kills:
        child = start(folder / "killed", workers, steps)
        time.sleep(random.uniform(0.1, 0.6) + 0.2 * workers)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            report["failures"] += status != 0
            return report
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = store.load_latest(print)
        report["kills"] += 1
        report["mid_run"] += found is not None and found["step"] < steps
    _, status = os.waitpid(start(folder / "killed", workers, steps), 0)
    report["failures"] += status != 0
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
