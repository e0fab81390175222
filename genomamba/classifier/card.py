"""A classifier's bundle: weights, where they came from, and the card that says what to expect of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from genomamba.classifier.config import FinetuneConfig
from genomamba.classifier.network import ClassifierConfig, SequenceClassifier
from genomamba.classifier.read_before import Reading
from genomamba.classifier.report import SeedResult, comparison_table
from mamba_data_prep.provenance import recorded_command, versions
from mamba_training import model_card as cards
from mamba_training.bundle import save_bundle


def save_classifier(
    path: Path,
    network: SequenceClassifier,
    settings: FinetuneConfig,
    report: Mapping[str, Any],
    best: SeedResult,
    content: Mapping[str, Any],
    read: Reading | None,
) -> None:
    """Write the bundle of the chosen seed.

    Args:
        path: the bundle's folder.
        network: the classifier, joined with its regression.
        settings: that it was trained with.
        report: of all seeds, see `build_report`.
        best: the chosen seed.
        content: file -> what `Fingerprint.to_dict` says of it.
        read: by this training and those before it; None where it isn't known of those before it.
    """
    training = {
        "seed": best.seed,
        "steps": best.steps,
        "status": best.status,
        "data": report["data"],
        "inputs": dict(content),
        **({} if read is None else {"read": read.to_dict()}),
        "test": best.test.headline(),
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
        "command": recorded_command(),
    }
    network.config = replace(network.config, training=training)
    save_bundle(path, network.state_dict(), network.config.to_dict(), model_card(network.config, report))


def model_card(config: ClassifierConfig, report: Mapping[str, Any]) -> str:
    """What the model is, what it was made from, and what it can and cannot do."""
    training = config.training
    verdicts = "\n".join(f"* {line}" for line in report["verdict"])
    about = (
        f"Made by `genomamba finetune` ({report['data'].get('task')}), seed {training['seed']}, "
        f"{training['steps']:,} steps. "
        f"It reads up to {config.window:,} bases at a time."
    )
    sections = {
        "What to expect": f"{verdicts}\n\n{comparison_table(report)}\nSplit: {report['data'].get('split')}.",
        "Data": cards.files_table(training["inputs"]),
        "Command": f"    {training['command']}",
        "Versions": cards.versions_line(training["versions"]),
    }
    return cards.model_card(f"Classifier of DNA: {', '.join(config.classes)}", about, sections)
