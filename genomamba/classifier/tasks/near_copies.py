"""Finding held-out sequences that are nearly copies of training sequences, before anything is trained on them."""

from __future__ import annotations

import numpy as np

from genomamba.classifier.tasks.labelled_tables import TableRow
from mamba_data_prep.genomes.sketches import closest, sketches

NEAR = 1 / 3
"""Share of a sequence's 16-mers that makes it nearly a copy: one base changed in the middle of 40 leaves a third."""


def near_copies(rows: list[TableRow], keep: np.ndarray, splits: np.ndarray) -> list[str]:
    """A sentence for each held-out split some of whose sequences are nearly in training.

    Args:
        rows: labelled sequences.
        keep: which of them are used, a mask.
        splits: train, valid or test for each row.
    """
    named = {name: np.flatnonzero(keep & (splits == name)) for name in ("train", "valid", "test")}
    lengths = [len(row.bases) for row in rows]
    made = {name: sketches((rows[i].bases for i in own), int(np.median(lengths))) for name, own in named.items()}
    said = []
    for name in ("valid", "test"):
        shares, where = closest(made[name], made["train"])
        near = np.flatnonzero(shares >= NEAR)
        if len(near):
            one, other = rows[named[name][near[0]]], rows[named["train"][where[near[0]]]]
            said.append(
                f"{len(near):,} of {len(named[name]):,} {name} sequences are nearly copies of a training sequence, on "
                f"either strand (a third or more of their 16-mers), such as {one.path.name} line {one.line:,} of "
                f"{other.path.name} line {other.line:,}: scores on them say little of new sequences; keep such "
                f"relatives in one split"
            )
    return said
