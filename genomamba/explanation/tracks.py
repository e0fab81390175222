"""Values of single bases as bigWig, which a genome browser shows along the genome."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mamba_data_prep.atomic import atomic_write


def write_track(path: Path, sizes: Mapping[str, int], stretches: Sequence[tuple[str, int, np.ndarray]]) -> bool:
    """Writes a value for each base; where stretches overlap, the one that begins first counts.

    Args:
        path: a `.bw`.
        sizes: length of each record.
        stretches: record, first base (0-based) and values; NaN is no value.

    Returns:
        Whether there was any value, and so a file.
    """
    import pybigtools

    def values() -> Iterator[tuple[str, int, int, float]]:
        order = list(sizes)
        last, done = "", 0
        for record, start, found in sorted(stretches, key=lambda one: (order.index(one[0]), one[1])):
            done = done if record == last else 0
            last = record
            for place in np.flatnonzero(~np.isnan(found)).tolist():
                if start + place >= done:
                    yield record, start + place, start + place + 1, float(found[place])
            done = max(done, start + len(found))

    rows = list(values())
    if not rows:
        return False
    with tempfile.TemporaryDirectory(prefix=".bigwig-", dir=path.parent) as folder, atomic_write(path, "wb") as stream:
        made = Path(folder) / "track.bw"
        pybigtools.open(str(made), "w").write(dict(sizes), iter(rows))
        with made.open("rb") as finished:
            shutil.copyfileobj(finished, stream)
    return True
