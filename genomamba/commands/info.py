"""`genomamba info`: what a model, a run, a genome or a preset is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genomamba.config import APP
from genomamba.models import descriptions, shipped
from mamba_configs import list_presets, load_preset, preset_text
from mamba_data_prep.errors import UserError


def run_info(what: str) -> dict[str, Any]:
    """Describes a preset's name, a bundle, a run folder or a FASTA file; `models` lists those that ship.

    Returns:
        Plain values for programs, and under `text` for people.

    Raises:
        UserError: it is none of these, or damaged.
    """
    presets = list_presets(APP)
    path = Path(what).expanduser()
    if what == "models":
        return _models()
    if what in shipped():
        return _model(shipped()[what])
    if what in presets:
        return {"preset": what, "settings": load_preset(APP, what), "text": preset_text(APP, what).rstrip("\n")}
    if (path / "config.yaml").is_file():
        return _run(path)
    if path.is_dir():
        return _model(path)
    if path.exists():
        return _genome(path)
    accepted = f"a model, a run folder, a FASTA file, models, or one of {', '.join([*shipped(), *presets])}"
    raise UserError("there is nothing of that name", found=what, accepted=accepted)


def _models() -> dict[str, Any]:
    """The models that ship, a line each."""
    found = list(descriptions())
    lines = [
        f"{one['name']:14} {one['n_parameters']:,} parameters, windows of {one['window']:,}; {one['tokens']:,} bases "
        f"of {one['trained_on']}; {one['test_bits']:.4f} bits per base on its test windows; {one['megabytes']} MB"
        for one in found
    ]
    return {"models": found, "text": "\n".join(lines) or "no model ships with this copy"}


def _run(path: Path) -> dict[str, Any]:
    from mamba_training.metrics_log import read_rows
    from mamba_training.run_folder import read_config

    config = read_config(path)
    rows = list(read_rows(path / "metrics.csv"))
    numbers = {name: float(value) for row in rows for name, value in row.items() if value}
    finished = (path / "model" / "config.json").is_file()
    found = {"run": str(path), "finished": finished, "last": numbers, "config": config}
    shown = ("step", "tokens", "seconds", "loss", "val_loss", "val_bits", "markov_bits")
    lines = [f"{path}: {'a finished run' if finished else 'a run without a model yet; --resume goes on with it'}"]
    lines += [f"  {name:12} {numbers[name]:,.6g}" for name in shown if name in numbers]
    if finished:
        model = _model(path)
        found["model"] = {key: value for key, value in model.items() if key != "text"}
        lines.append(model["text"])
    return {**found, "text": "\n".join(lines)}


def _model(path: Path) -> dict[str, Any]:
    from mamba_training.bundle import load_bundle

    bundle = load_bundle(path)
    n_parameters = sum(tensor.numel() for tensor in bundle.state.values())
    shape, window = bundle.config.get("model", {}), bundle.config.get("window")
    lines = [f"{bundle.path}: {bundle.config.get('kind')}, {n_parameters:,} parameters"]
    if {"n_layers", "d_model"} <= shape.keys():
        lines.append(f"  {shape['n_layers']} layers of {shape['d_model']} channels, windows of {window or 0:,} bases")
    if bundle.config.get("classes"):
        lines.append(f"  classes: {', '.join(map(str, bundle.config['classes']))}")
    result = bundle.config.get("training", {}).get("result", {})
    for name in ("valid", "test"):
        if isinstance(result.get(name), dict) and "bits" in result[name]:
            beside = result.get("markov", {}).get(f"{name}_bits")
            markov = f" (Markov {beside:.4f})" if beside is not None else ""
            lines.append(f"  {name:5} {result[name]['bits']:.4f} bits per base{markov}")
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "n_parameters": n_parameters,
        "config": bundle.config,
        "text": "\n".join(lines),
    }


def _genome(path: Path) -> dict[str, Any]:
    import numpy as np

    from mamba_data_prep.genomes.genome import Genome

    genome = Genome.open(path)
    n_bases = int(genome.lengths.sum())
    numbers = np.arange(len(genome))
    unknown = int(genome.unknown_counts(numbers, np.zeros(len(genome), dtype=np.int64), genome.lengths).sum())
    found = {
        "fasta": str(path),
        "records": len(genome),
        "bases": n_bases,
        "unknown_bases": unknown,
        "longest": int(genome.lengths.max(initial=0)),
        **genome.fingerprint.to_dict(),
    }
    names = ", ".join(f"{record.name} ({record.length:,})" for record in genome.records[:5])
    more = f", and {len(genome) - 5:,} more" if len(genome) > 5 else ""
    text = (
        f"{path}: {len(genome):,} record(s), {n_bases:,} bases, {unknown / max(1, n_bases):.2%} not A, C, G or T\n"
        f"  {names}{more}\n  {found['size']:,} bytes, xxh3-128 {found['xxh3_128']}"
    )
    return {**found, "text": text}
