"""What counts in the model are worth: runs of equal minutes, with and without the table of contexts, side by side.

    python -m benchmarks.counts --run runs/with --run runs/without

Every figure is one that the run itself recorded: bits per base on its held-out windows, and the table's own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save_results
from mamba_training.bundle import load_bundle


def row(run: Path) -> dict[str, Any]:
    """One run's figures."""
    config = load_bundle(run).config
    result = config["training"]["result"]
    alone = result.get("counts_alone")
    return {
        "counts in the model": "none" if alone is None else f"order {alone['order']}, {alone['long_contexts']:,} long",
        "parameters": result["n_parameters"],
        "minutes": round(result["seconds"] / 60, 1),
        "bases read": result["tokens"],
        "validation": f"{result['valid']['bits']:.4f}",
        "test": f"{result['test']['bits']:.4f}",
        "test, network off": "-" if alone is None else f"{alone['test_bits']:.4f}",
    }


def main() -> None:
    """Prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", default=[])
    options = parser.parse_args()
    if not options.run:
        print("benchmarks.counts: nothing to do without --run RUN")
        return
    rows = [row(run) for run in options.run]
    print_table("Bits per base", rows)
    save_results("counts", {"rows": rows})


if __name__ == "__main__":
    main()
