"""A language model of a genome beside the best Markov model: bits per base over time, and at the end on test windows.

python -m benchmarks.pretrain --fasta GENOME.fa.gz [--minutes 20]    # trains by the command line's defaults
python -m benchmarks.pretrain --run RUN                              # tells of a run that has been trained
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common import print_table, save_results

MINUTES = (1, 2, 5, 10, 20, 40, 60, 120)


def curve(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """The first validation after each of some minutes, and the last."""
    held_out = metrics.dropna(subset=["val_bits"])
    rows = held_out.to_dict("records")
    after = [next((row for row in rows if row["seconds"] >= 60 * minutes), rows[-1]) for minutes in MINUTES]
    chosen = {row["step"]: row for row in (*after, rows[-1])}
    return [
        {
            "minutes": f"{row['seconds'] / 60:.1f}",
            "bases seen": int(row["tokens"]),
            "bits per base, validation": f"{row['val_bits']:.4f}",
            "best Markov model of the same bases": f"{row['markov_bits']:.4f}",
        }
        for row in chosen.values()
    ]


def ends(training: dict[str, Any]) -> list[dict[str, Any]]:
    """Bits per base on the final windows, which nothing was chosen on but what `validation` says."""
    result, markov = training["result"], training["result"]["markov"]
    scored = f"{training['genome']['file']}, windows of {result['window']:,}"
    ours = {"model": f"Mamba, {result['n_parameters']:,} parameters"}
    counts = {"model": f"Markov, order {markov['order']}, m = {markov['strength']:g}, same bases"}
    bits = [(result["valid"]["bits"], result["test"]["bits"]), (markov["valid_bits"], markov["test_bits"])]
    return [
        {**row, "validation": f"{valid:.4f}", "test": f"{test:.4f}", "scored on": scored}
        for row, (valid, test) in zip((ours, counts), bits, strict=True)
    ]


def main() -> None:
    """Scores a trained model beside the Markov models, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--fasta", type=Path)
    given.add_argument("--run", type=Path)
    parser.add_argument("--minutes", type=int, default=20)
    options = parser.parse_args()
    if options.fasta is None and options.run is None:
        print("benchmarks.pretrain: nothing to do without --fasta GENOME or --run RUN")
        return
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            command = [sys.executable, "-m", "genomamba", "pretrain", "--fasta", str(options.fasta), "--out", str(run)]
            subprocess.run([*command, "--max-time", f"{options.minutes}m"], check=True)
        over_time = curve(pd.read_csv(run / "metrics.csv"))
        final = ends(json.loads((run / "model" / "config.json").read_text())["training"])
    print_table("Over time", over_time)
    print_table("At the end", final)
    save_results("pretrain", {"curve": over_time, "final": final}, data=[options.fasta] if options.fasta else [])


if __name__ == "__main__":
    main()
