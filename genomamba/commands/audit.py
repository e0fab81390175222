"""`genomamba audit`: how a genome is split, the proof that splits share no base, and what a model has read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.read_before import Reading
from genomamba.classifier.tasks.stretches import cut_sections
from genomamba.config import DataConfig, load_config
from genomamba.language_model.data import make_split, open_genome
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.genomes.audit import audit
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.splits import Split
from mamba_training.bundle import load_bundle


def run_audit(
    *,
    config: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    from_model: Path | None = None,
    sections: Path | None = None,
) -> dict[str, Any]:
    """Splits a genome as `pretrain` would, and audits the split.

    Args:
        config: preset or file.
        overrides: `KEY=VALUE` texts.
        flags: dotted keys and values (`fasta`, `bed`).
        from_model: a model whose reading is compared with each split.
        sections: where to write the sections that `finetune species` and `finetune promoter` cut of this genome with
            windows of `data.window` bases; the genome is then split by them, as `pretrain --bed` would with that file.

    Returns:
        The split and the audit for programs, and under `text` for people.

    Raises:
        UserError: the configuration or a file cannot be used.
    """
    settings = load_config(config, overrides, flags=flags)
    genome = open_genome(settings.fasta)
    if sections is not None:
        _write_sections(sections, genome, settings.data)
    split = make_split(genome, settings.data, settings.bed if sections is None else sections)
    report = audit(genome, split)
    rows = [f"  {name:5}  {len(table):12,} windows  {table.bases:15,} bases" for name, table in split.tables().items()]
    about = f"{genome.path.name}: {len(genome):,} record(s), {int(genome.lengths.sum()):,} bases"
    method = f"split by {split.description['method']} in windows of {settings.data.window:,} bases"
    read, lines = ({}, []) if from_model is None else _read_by(from_model, genome, split)
    written = [] if sections is None else [f"sections written to {sections}: genomamba pretrain --bed {sections} ..."]
    return {
        "genome": {"path": str(genome.path), **genome.fingerprint.to_dict()},
        "split": split.description,
        "audit": report.to_dict(),
        **({} if from_model is None else {"read_by_model": read or None}),
        "text": "\n".join([about, method, *rows, str(report), *lines, *written]),
    }


def _write_sections(path: Path, genome: Genome, data: DataConfig) -> None:
    """Writes a BED file whose fourth column names the split of each section."""
    own = FinetuneData()
    cut = cut_sections(genome.lengths.tolist(), data.window, own.valid_fraction, own.test_fraction, gap=own.gap)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        for one in cut:
            file.write(f"{genome.records[one.record].name}\t{one.start}\t{one.end}\t{one.split}\n")


def _read_by(model: Path, genome: Genome, split: Split) -> tuple[dict[str, Any], list[str]]:
    """How much of each split a model has read, as plain values and as sentences; no values where it isn't known."""
    bundle = load_bundle(model)
    reading = Reading.of_training_record(bundle.config.get("training", {}), bundle.path)
    if reading is None:
        return {}, [f"what {model} has read is unknown: its bundle does not say"]
    known = reading.of_genome(genome.fingerprint.xxh3_128)
    if known is None:
        return {}, [f"whether {model} has read this genome is unknown: it read other files"]
    found = {name: known.overlap_of(genome, table) for name, table in split.tables().items()}
    lines = [f"  {name:5}  {model} has read {one}" for name, one in found.items()]
    return {name: one.to_dict() for name, one in found.items()}, lines
