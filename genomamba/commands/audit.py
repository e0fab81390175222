"""`genomamba audit`: how a genome is split, and the proof that no base is in two splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genomamba.config import load_config
from genomamba.language_model.data import make_split, open_genome
from mamba_data_prep.genomes.audit import audit


def run_audit(
    *, config: str | None = None, overrides: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Splits a genome as `pretrain` would, and audits the split.

    Args:
        config: preset or file.
        overrides: `KEY=VALUE` texts.
        flags: dotted keys and values (`fasta`, `bed`).

    Returns:
        The split and the audit for programs, and under `text` for people.

    Raises:
        UserError: the configuration or a file cannot be used.
    """
    settings = load_config(config, overrides, flags=flags)
    genome = open_genome(settings.fasta)
    split = make_split(genome, settings.data, settings.bed)
    report = audit(genome, split)
    rows = [f"  {name:5}  {len(table):12,} windows  {table.bases:15,} bases" for name, table in split.tables().items()]
    about = f"{genome.path.name}: {len(genome):,} record(s), {int(genome.lengths.sum()):,} bases"
    method = f"split by {split.description['method']} in windows of {settings.data.window:,} bases"
    return {
        "genome": {"path": str(genome.path), **genome.fingerprint.to_dict()},
        "split": split.description,
        "audit": report.to_dict(),
        "text": "\n".join([about, method, *rows, str(report)]),
    }
