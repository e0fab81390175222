"""Fills a small disk, makes it read-only, and limits file sizes, at each write of a run; reports what was left as JSON.

unshare -rm python full_disk.py FOLDER      (a disk of its own, mounted in FOLDER, without any privilege)
python full_disk.py FOLDER limits           (only the limits on file sizes)
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import torch

from mamba_data_prep.errors import UserError
from mamba_training.bundle import load_bundle, save_bundle
from mamba_training.checkpoint import CheckpointStore, read_checkpoint

WEIGHTS = {"weight": torch.arange(50_000.0)}


def mount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)


def in_child(work: Callable[[], object]) -> str:
    """The message of the UserError that `work` ends with in a process of its own; "ok" if it ends well."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            message = "ok"
        except UserError as error:
            message = str(error)
        except BaseException as error:
            message = f"BUG {type(error).__name__}: {error}"
        os.write(write_end, message.encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as pipe:
        return pipe.read().decode()


def limited(limit: int, work: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return work()

    return run


def train(folder: Path, steps: int) -> None:
    from toy import ToyData, ToyModel

    from mamba_training.run import fit
    from mamba_training.settings import RunSettings

    settings = RunSettings(out=folder, max_steps=steps, checkpoint_every=1, resume=True, progress=False)
    fit(ToyModel(), ToyData(), settings, config={"a": 1})


def size_limits(folder: Path) -> dict[str, object]:
    store = CheckpointStore(folder / "checkpoints")
    store.save({"step": 1, **WEIGHTS})
    store.save({"step": 2, **WEIGHTS})
    save_bundle(folder / "model", WEIGHTS, {"step": 2}, "card")
    whole = (folder / "model" / "model.safetensors").stat().st_size
    limits = [0, 1, 100, *range(10_000, whole, whole // 16), whole - 1]
    messages, intact = [], 0
    for limit in limits:
        messages.append(in_child(limited(limit, lambda: store.save({"step": 3, **WEIGHTS}))))
        messages.append(in_child(limited(limit, lambda: save_bundle(folder / "model", WEIGHTS, {"step": 3}, "card"))))
        store.clean()
        steps = (read_checkpoint(store.last)["step"], load_bundle(folder / "model").config["step"])
        intact += steps == (2, 2)
    return {"tries": len(limits), "intact": intact, "messages": messages, "left": sorted(os.listdir(store.folder))}


def full_disk(folder: Path) -> dict[str, object]:
    import mamba_training.run  # noqa: F401  (once, so that each child need not)

    mount(folder, "-o", "size=400k")
    run = folder / "run"
    report: dict[str, object] = {"first": in_child(lambda: train(run, 3))}
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    report["full"] = in_child(lambda: train(run, 40))
    os.truncate(ballast, ballast.stat().st_size - 8192)
    report["nearly_full"] = in_child(lambda: train(run, 40))
    report["step_when_full"] = read_checkpoint(run / "checkpoints" / "last.ckpt")["step"]
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    report["read_only"] = in_child(lambda: train(run, 40))
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    ballast.unlink()
    report["freed"] = in_child(lambda: train(run, 40))
    report["step_at_end"] = read_checkpoint(run / "checkpoints" / "last.ckpt")["step"]
    report["left"] = sorted(path.name for path in (run / "checkpoints").iterdir())
    subprocess.run(["umount", str(folder)], check=True)
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    print(json.dumps(size_limits(where) if sys.argv[2:] == ["limits"] else full_disk(where)))
