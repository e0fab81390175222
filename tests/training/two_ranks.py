"""Trains the toy on two processes: python two_ranks.py FOLDER STEPS STRATEGY [--resume]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from toy import ToyData, ToyModel

from mamba_training.run import fit
from mamba_training.settings import RunSettings


def main(folder: Path, steps: int, strategy: str, resume: bool) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = RunSettings(
        out=folder,
        max_steps=steps,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        val_every=4,
        checkpoint_every=3,
        grad_accumulation=2,
        resume=resume,
        keep_best=False,
        precision="32-true",  # in bfloat16 a sum in another order differs in the third digit
    )
    result = fit(ToyModel(dropout=0.0), ToyData(batch_size=2), settings, config={"a": 1})
    print(result.step, result.tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], "--resume" in sys.argv)
