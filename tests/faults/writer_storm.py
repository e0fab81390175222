"""Kills a process while it writes checkpoints, again and again, and reports what was left as JSON.

    python writer_storm.py FOLDER KILLS

One parent imports torch, so that each child (a fork) starts writing at once. A child tells which step it has saved
through a pipe; nothing told there may be lost. Every other child is killed at a random time. The rest end by their own
hand while they flush a half-written file to the disk, so that these fall into a write however fast the machine is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import torch

from mamba_training.checkpoint import CheckpointStore, DamagedCheckpoint, read_checkpoint

VALUES = 200_000


def payload(step: int) -> dict[str, object]:
    return {"step": step, "weight": torch.full((VALUES,), float(step))}


def die_at_flush(number: int) -> None:
    """Kill this process in its `number`-th flush of a file that has a temporary name."""
    flush, left = os.fsync, number

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= os.readlink(f"/proc/self/fd/{descriptor}").endswith(".partial")
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = fsync


def write_for_ever(folder: Path, step: int, told: int) -> None:
    store = CheckpointStore(folder)
    store.clean()
    while True:
        step += 1
        store.save(payload(step), is_best=step % 3 == 0)
        os.write(told, struct.pack("<q", step))


def is_whole(found: dict[str, object]) -> bool:
    weight = found["weight"]
    return isinstance(weight, torch.Tensor) and weight.shape == (VALUES,) and bool((weight == found["step"]).all())


def main(folder: Path, kills: int) -> dict[str, int]:
    random.seed(kills)
    store = CheckpointStore(folder)
    report = {"kills": 0, "unreadable": 0, "lost": 0, "orphans": 0, "cut_short": 0, "step": 0}
    saved = 0
    for number in range(kills):
        by_itself = number % 2
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            if by_itself:
                die_at_flush(random.randrange(1, 6))
            write_for_ever(folder, saved, write_end)
        os.close(write_end)
        if not by_itself:
            time.sleep(random.uniform(0.001, 0.04))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read_end, "rb") as pipe:
            told = pipe.read()
        saved = max([saved, *(step for (step,) in struct.iter_unpack("<q", told))])
        report["kills"] += 1
        report["cut_short"] += any(path.name.endswith(".partial") for path in folder.glob(".*"))
        for path in store.candidates():
            try:
                report["unreadable"] += not is_whole(read_checkpoint(path))
            except DamagedCheckpoint:
                report["unreadable"] += 1
        found = store.load_latest(print) if saved else None
        step = int(found["step"]) if found else 0
        report["lost"] += step < saved
        saved = max(saved, step)
        store.clean()
        allowed = {"last.ckpt", "previous.ckpt", "best.ckpt"}
        report["orphans"] += sum(path.name not in allowed for path in folder.iterdir())
    report["step"] = saved
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
