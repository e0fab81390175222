"""A report in Kraken's format, which MultiQC and Pavian read: how many sequences of each class, how many of none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from genomamba.prediction.rows import ABSTAIN
from mamba_data_prep.atomic import atomic_write

_ROOT: Final = 1
_FIRST: Final = 2


def write_kraken_report(path: Path, classes: Sequence[str], counts: Mapping[str, int]) -> None:
    """Writes the six columns: per cent and number of sequences in the clade, number at the taxon, rank, id, name.

    A model's classes are no taxa of a database: they stand as species below the root, with ids of their own, 2 upwards.

    Args:
        path: of the report.
        classes: of the model.
        counts: sequences of each class, and of "abstain".
    """
    total = sum(counts.values())
    named = total - counts.get(ABSTAIN, 0)
    rows = [(counts.get(ABSTAIN, 0), counts.get(ABSTAIN, 0), "U", 0, "unclassified"), (named, 0, "R", _ROOT, "root")]
    found = sorted(classes, key=lambda name: (-counts.get(name, 0), name))
    ids = {name: _FIRST + place for place, name in enumerate(classes)}
    for name in found:
        if counts.get(name):
            rows.append((counts[name], counts[name], "S", ids[name], f"  {' '.join(name.split())}"))
    with atomic_write(path) as file:
        for clade, own, rank, taxon, name in rows:
            file.write(f"{100 * clade / max(1, total):6.2f}\t{clade}\t{own}\t{rank}\t{taxon}\t{name}\n")
