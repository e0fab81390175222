"""What counting all training bases reaches: the Markov judge of `genomamba pretrain`, by its longest context.

    python -m benchmarks.markov --fasta GENOME.fa.gz

The split, the windows that are scored and the counting are those of a pre-training by the command line's defaults, so
the rows stand beside those of `benchmarks.pretrain` on the same genome. The longest contexts take 7 GB of memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save_results
from genomamba.config import DataConfig
from genomamba.language_model.data import GenomeWindows, frozen, make_split, open_genome
from genomamba.language_model.markov import table_bytes
from genomamba.language_model.markov_of_run import affordable_order, markov_of_all

ORDERS = (12, 13, 14)


def counted(fasta: Path, orders: tuple[int, ...] = ORDERS) -> dict[str, list[dict[str, Any]]]:
    """The tables of results: `rows`, one for each longest context that the genome's bases and the free memory allow;
    `by_order`, what contexts of each length cost on the validation windows, of the last row's counts.
    """
    config = DataConfig()
    genome = open_genome(fasta)
    split = make_split(genome, config)
    train = GenomeWindows(genome, split.train)
    valid, test = (GenomeWindows(genome, frozen(part, config.final_bases)) for part in (split.valid, split.test))
    rows, by_order = [], []
    for longest in (order for order in orders if order <= affordable_order(2 * split.train.bases)):
        began = time.perf_counter()
        judge = markov_of_all(train, valid, test, max_order=longest)
        by_order = judge.by_order
        rows.append(
            {
                "model": f"Markov, order {judge.order}, m = {judge.strength:g}, all training bases, both strands",
                "longest context": longest,
                "bases counted": judge.bases_seen,
                "validation": f"{judge.valid_bits:.4f}",
                "test": f"{judge.test_bits:.4f}",
                "test windows": len(test),
                "seconds": time.perf_counter() - began,
                "counts and tables, GB": table_bytes(longest) / 1e9,
            }
        )
    names = ("order", "m", "validation")
    return {"rows": rows, "by_order": [dict(zip(names, (k, m, f"{b:.4f}"), strict=True)) for k, m, b in by_order]}


def main() -> None:
    """Counts, scores, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path)
    options = parser.parse_args()
    if options.fasta is None:
        print("benchmarks.markov: nothing to do without --fasta GENOME")
        return
    tables = counted(options.fasta)
    print_table(f"{options.fasta.name}, bits per base", tables["rows"])
    print_table("Of each order, on the validation windows", tables["by_order"])
    save_results("markov", {"genome": options.fasta.name, **tables}, data=[options.fasta])


if __name__ == "__main__":
    main()
