"""What the Mamba in `zero` is worth: the same network with another backbone, trained on the same synthetic series.

    python -m benchmarks.zero_twins --data FOLDER --runs FOLDER

The first folder is that of `benchmarks.zero`; the second holds runs of `tsmamba pretrain`, any of their backbones and
lengths, each a row. The validation's synthetic series are the same for all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import print_table, save_results
from benchmarks.zero import COMPETITIONS, SEED, Competition, competitions, quantiles
from tsmamba.config import LEVELS
from tsmamba.zero.forecast import load


def row_of(run: Path, series: list[Competition]) -> dict[str, Any]:
    """One run: its backbone, what it was trained on, and its MASE on each competition."""
    config = json.loads((run / "model" / "config.json").read_text())
    network = load(run)
    about = {
        "backbone": config["network"]["backbone"], "numbers": sum(one.numel() for one in network.parameters()),
        "steps": config["training"]["steps"], "series": config["training"]["series"],
        "synthetic loss": round(config["training"]["loss"], 4),
    }  # fmt: skip
    middle = LEVELS.index(0.5)
    return {**about, **{one.name: round(one.mase(quantiles(network, one)[..., middle]), 3) for one in series}}


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with M1.rda, M3.rda and tourism.rda")
    parser.add_argument("--runs", type=Path, help="folder of runs of `tsmamba pretrain`")
    options = parser.parse_args()
    if options.data is None or options.runs is None:
        print("benchmarks.zero_twins: nothing to do without --data FOLDER and --runs FOLDER")
        return
    torch.set_num_threads(1)
    series = competitions(options.data)
    runs = sorted(folder.parent for folder in options.runs.glob("*/model"))
    rows = sorted((row_of(run, series) for run in runs), key=lambda row: (row["steps"], row["backbone"]))
    print_table("zero and its twins, MASE", rows)
    save_results(
        "zero_twins", {"table": rows}, data=[options.data / f"{name}.rda" for name in COMPETITIONS], seeds=[SEED]
    )


if __name__ == "__main__":
    main()
