"""`genomamba explain`: which bases decide, and what the layers remember, as tables, tracks, pictures and a page."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

from genomamba import tokens
from genomamba.commands.checks import check_explain
from genomamba.explanation.pictures import draw_memory, draw_record
from genomamba.explanation.remembered import channel_table, word_table
from genomamba.explanation.report import write_page
from genomamba.explanation.stretch import METHODS, Stretch, bases_a_position, refusals
from genomamba.explanation.tracks import write_track
from genomamba.language_model.objectives import is_base
from genomamba.public import load
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.alphabet import reverse_complement
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.intervals import Interval, read_bed
from mamba_data_prep.genomes.regions import parse_region
from mamba_data_prep.provenance import write_sidecar
from mamba_kernels.blocks.memory import LayerMemory
from mamba_training.devices import pick_device
from mamba_training.progress import say

MOST_BASES: Final = 1 << 14
"""Bases of a stretch, and those whose memory is put together, at most."""
_MUTATED_BY_DEFAULT: Final = 1_000
_PICTURES: Final = 20
_SAY_SECONDS: Final = 30.0
_TITLES: Final = {"ism": "mutagenesis", "gradient": "gradient x input", "integrated": "integrated gradients"}


def run_explain(
    *,
    model: Path,
    fasta: Path,
    out: Path,
    bed: Path | None = None,
    regions: Sequence[str] = (),
    methods: Sequence[str] = (),
    class_name: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Explains what a model says of sequences.

    Args:
        model: a classifier, or a language model.
        fasta: FASTA, FASTQ, GenBank, EMBL or .2bit, plain, gzip or bgzip.
        out: the folder, which gets `attributions.tsv`, tracks, pictures, `report.html`, and of the memory `memory.tsv`
            (a row a channel) and `words.tsv`.
        bed: only these stretches; one on the minus strand is read from it.
        regions: only these, named as samtools names them, with or without a strand.
        methods: some of `METHODS`; by default all that the model allows, mutagenesis up to 1,000 bases.
        class_name: whose log-odds are explained; by default the class predicted for each stretch.
        device: `auto`, `cpu` or `cuda`.
        overwrite: replace an earlier explanation.

    Returns:
        `stretches`, `bases` and `methods`, and under `text` the same for people.

    Raises:
        UserError: something about the model, the file, the stretches or the methods.
    """
    check_explain(model=model, fasta=fasta, bed=bed, regions=regions, out=out, overwrite=overwrite)
    network = load(model).to(pick_device(device))
    genome = Genome.open(fasta)
    stretches = [_read(genome, region, network) for region in _regions(genome, bed, regions)]
    used = _methods(methods, refusals(network), sum(len(one.ids) for one in stretches))
    known = [one for one in stretches if bool(is_base(one.ids).any())]
    if not known:
        raise UserError("no stretch has a known base", path=fasta)
    if len(known) < len(stretches):
        say(f"note: {len(stretches) - len(known):,} stretch(es) without a known base are left out")
    mutated = _Counter(sum(len(one.ids) for one in known))
    for one in known:
        one.explain(network, used, class_name, mutated)
    out.mkdir(parents=True, exist_ok=True)
    about = f"{len(known):,} stretch(es), {sum(len(one.ids) for one in known):,} bases of {fasta.name}, explained for "
    _write(out, known, genome, bases_a_position(network), f"{about}{model} by {', '.join(used)}.")
    settings = {"methods": used, "class": class_name, "regions": [one.name for one in known]}
    write_sidecar(out / "attributions.tsv", inputs=[fasta], model=model, extra={"settings": settings})
    text = [f"{one.name}: {one.goal}" for one in known[:_PICTURES]]
    result = {"out": str(out), "stretches": len(known), "bases": sum(len(one.ids) for one in known), "methods": used}
    return {**result, "text": "\n".join([*text, f"report: {out / 'report.html'}"])}


class _Counter:
    """Says every half minute how many of so many bases have been mutated."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._said = total, 0, time.monotonic()

    def __call__(self, more: int) -> None:
        self._done += more
        if time.monotonic() - self._said >= _SAY_SECONDS:
            say(f"mutated {self._done:,} of {self._total:,} bases")
            self._said = time.monotonic()


def _regions(genome: Genome, bed: Path | None, regions: Sequence[str]) -> list[Interval]:
    if bed is not None:
        found = read_bed(bed, genome)
    elif regions:
        found = [parse_region(text, genome) for text in regions]
    else:
        found = [Interval(record.name, 0, record.length) for record in genome.records if record.length]
    for one in found:
        if len(one) > MOST_BASES:
            raise UserError(
                "this stretch is too long to be explained base by base", path=genome.path, record=one.name,
                found=f"{len(one):,} bases", accepted=f"up to {MOST_BASES:,}",
                fix="name a part of it: --region NAME:FIRST-LAST, or --bed FILE",
            )  # fmt: skip
    if not found:
        raise UserError("there is nothing to explain", path=bed or genome.path)
    return found


def _read(genome: Genome, region: Interval, network: torch.nn.Module) -> Stretch:
    bases = genome.fetch(region.name, region.start, region.end)
    letters = (reverse_complement(bases) if region.strand == "-" else bases).tobytes().decode("ascii")
    ids = torch.from_numpy(tokens.encode(letters)).to(next(network.parameters()).device)
    return Stretch(region, letters, ids)


def _methods(asked: Sequence[str], refused: dict[str, str], n_bases: int) -> list[str]:
    for method in asked:
        if method in refused:
            raise UserError(f"{method} tells nothing of this model: {refused[method]}")
    if asked:
        return [method for method in METHODS if method in asked]
    used = [method for method in METHODS if method not in refused]
    if n_bases > _MUTATED_BY_DEFAULT and len(used) > 1:
        say(f"note: mutagenesis of {n_bases:,} bases takes long and is left out; ask for it by --method ism")
        used.remove("ism")
    return used


def _write(out: Path, stretches: Sequence[Stretch], genome: Genome, stride: int, about: str) -> None:
    """Tables, tracks, pictures and the page."""
    with atomic_write(out / "attributions.tsv") as file:
        table = pd.concat([one.table() for one in stretches], ignore_index=True)
        table.to_csv(file, sep="\t", index=False, float_format="%.6f")
    sizes = {record.name: record.length for record in genome.records if record.length}
    tracks = [name for name in (*_TITLES, "openness") if name in table]
    for name in tracks:
        places = [
            (one.region.name, one.region.start, one.table()[name].to_numpy()[:: -1 if one.minus else 1])
            for one in stretches
        ]
        write_track(out / f"{name}.bw", sizes, places)
    pictures = {}
    for number, one in enumerate(stretches[:_PICTURES]):
        path = out / f"{number + 1:02}_{re.sub(r'[^A-Za-z0-9._-]+', '_', one.name)[:60]}.png"
        draw_record(
            path, title=f"{one.name}: {one.goal}", letters=one.letters, offset=0 if one.minus else one.region.start,
            importance={_TITLES[name]: values for name, values in one.importance.items()}, mutations=one.mutations,
            opened=one.opened,
        )  # fmt: skip
        pictures[one.name] = (path, one.strongest())
    memory = _write_memory(out, [one for one in stretches if one.memory], stride)
    lines = [about, *(f"{one.name}: {one.goal}" for one in stretches[:_PICTURES])]
    if len(stretches) > _PICTURES:
        lines.append(f"The first {_PICTURES} are drawn; attributions.tsv holds all.")
    write_page(out / "report.html", title="What the model looks at", lines=lines, records=pictures, memory=memory)


def _write_memory(out: Path, stretches: Sequence[Stretch], stride: int) -> Path | None:
    """What the layers remember over the first stretches, as two tables and a picture."""
    if not stretches:
        return None
    taken, total = [], 0
    for one in stretches:
        if taken and total + len(one.ids) > MOST_BASES:
            break
        taken.append(one)
        total += len(one.ids)
    layers = [
        LayerMemory(first.layer, torch.cat([one.memory[n].steps[:1] for one in taken], dim=1), first.rates)
        for n, first in enumerate(taken[0].memory)
    ]
    channels = channel_table(layers, stride)
    gap = np.full((len(layers), 1), np.nan)
    opened = np.concatenate([part for one in taken for part in (one.opened, gap) if part is not None], axis=1)
    between = torch.tensor([tokens.N], dtype=torch.uint8)
    ids = torch.cat([part for one in taken for part in (one.ids.cpu(), between)])
    words = word_table(opened, ids, [layer.layer for layer in layers])
    for name, table in (("memory.tsv", channels), ("words.tsv", words)):
        with atomic_write(out / name) as file:
            table.to_csv(file, sep="\t", index=False, float_format="%.6g")
    draw_memory(out / "memory.png", channels, words)
    return out / "memory.png"
