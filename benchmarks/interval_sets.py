"""How many test intervals of GenomicBenchmarks overlap training intervals in the genome.

    python -m benchmarks.interval_sets --data FOLDER

FOLDER is what `genomamba fetch genomic-benchmarks` brings; each file's hash is held against the catalogue's. Only
coordinates are compared, so that no genome is needed: those of classes that lie in different genomes never overlap.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import load_results, print_table, save_results, sha256
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.classifier.tasks.intervals import shared_with_training
from genomamba.fetching import catalogue
from mamba_data_prep.genomes.windows import WindowTable

ENTRY = "genomic-benchmarks"


def check_hashes(data: Path) -> None:
    """Refuses files that are not those of the catalogue."""
    for file in catalogue.entry_named(ENTRY).files:
        if file.hash != f"sha256:{sha256(data / file.name)}":
            raise SystemExit(f"{data / file.name} is not the file of the catalogue")


def measured(path: Path) -> dict[str, Any]:
    """The row of one set."""
    folder = IntervalFolder.open(path)
    numbers: dict[tuple[str, str], int] = {}
    found = [
        (split == "test", folder.classes.index(str(one.label)), one.start, one.end,
         numbers.setdefault((folder.genomes.get(str(one.label), ""), one.name), len(numbers)))
        for split, one in folder.intervals()
    ]  # fmt: skip
    test, label, start, end, record = np.array(found, np.int64).T
    held = test.astype(bool)
    table = WindowTable(record.astype(np.int32), start, end)
    counts = shared_with_training(table.select(held), label[held], table.select(~held), label[~held])
    return {
        "set": path.name, "test intervals": counts["of"], "overlap training": counts["overlapping"],
        "by half or more": counts["by_half_or_more"], "another class": counts["another_class"],
    }  # fmt: skip


def main() -> None:
    """Measure every set and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the sets; without it, what was measured is shown")
    data = parser.parse_args().data
    if data is None:
        if rows := load_results("interval_sets").get("rows"):
            print_table("measured before", rows)
        return
    check_hashes(data)
    rows = [measured(path) for path in sorted(one.parent for one in data.glob("*/train"))]
    print_table("GenomicBenchmarks", rows)
    listed = Path(catalogue.__file__).with_name("catalogue.yaml")
    save_results("interval_sets", {"rows": rows}, data=[listed])


if __name__ == "__main__":
    main()
