"""The fits of the study of promoters: our classifier from scratch and frozen, small CNNs over seeds, and the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.held_out import logits_of
from genomamba.classifier.kmers import letter_table
from genomamba.classifier.metrics import fit_temperature, measure, softmax
from genomamba.classifier.request import resolve
from genomamba.classifier.small_cnn import cnn_baseline
from genomamba.classifier.tasks.of_run import labelled_data
from genomamba.classifier.training import make_start, shaped, start_bundle, train_seed
from genomamba.commands.finetune import run_finetune
from genomamba.models import model_path
from genomamba.studies.promoters.sets import PromoterOptions, PromoterSet
from genomamba.studies.promoters.start_sites import write_start_sites
from genomamba.studies.study import Place
from mamba_data_prep.genomes.sketches import closest, sketches

_MOST_LETTERS = 50_000_000
"""Bases of the one-hot tables of a CNN."""
_NEAR = 1 / 3


def fit_set(name: str, one: PromoterSet, options: PromoterOptions, place: Place) -> dict[str, Any]:
    """Everything that is fitted on one set of promoters; finished fits are read.

    Args:
        name: of the set.
        one: its task and files.
        options: of the study.
        place: where files are read and fits kept.
    """
    inputs = _inputs(one, place, name)
    limits = {"minutes": options.minutes, "steps": options.steps}
    several = {"seeds": options.seeds, **limits}
    results = {
        "scratch": place.once(f"{name}-scratch", several, lambda folder: _finetune(one, inputs, options, folder)),
    }
    if options.model is not None:
        model = model_path(options.model)
        results["frozen"] = place.once(
            f"{name}-frozen", {"model": options.model},
            lambda folder: _frozen(one, inputs, model, folder),
        )  # fmt: skip
    results["cnn"] = place.once(
        f"{name}-cnn", {"seeds": options.seeds}, lambda _: _cnns(labelled_data(*_task(one, inputs)), options.seeds)
    )
    results["labels"] = place.once(f"{name}-labels", {}, lambda _: _labels(labelled_data(*_task(one, inputs))))
    return results


def _task(one: PromoterSet, inputs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], FinetuneData]:
    return one.task, inputs, FinetuneData()


def _inputs(one: PromoterSet, place: Place, name: str) -> dict[str, Any]:
    """The files as `run_finetune` takes them."""
    files = {key: place.data / path for key, path in one.inputs.items()}
    if "sites" in files:
        made = place.out / "fits" / f"{name}-sites.bed"
        made.parent.mkdir(parents=True, exist_ok=True)
        write_start_sites(files.pop("sites"), files.pop("genes"), made)
        files["tss"] = made
    return {key: (path,) if key == "table" else path for key, path in files.items()}


def _finetune(one: PromoterSet, inputs: Mapping[str, Any], options: PromoterOptions, folder: Path) -> dict[str, Any]:
    """The report of `genomamba finetune`, with the test probabilities of each seed."""
    run = folder / "run"
    flags = {"train.max_time": f"{options.minutes * 60:g}s", "train.max_steps": options.steps}
    report = run_finetune(task=one.task, out=run, flags=flags, seeds=options.seeds, resume=run.exists(), **inputs)
    folders = [Path(seed["folder"]) for seed in report["runs"]]
    tables = [pd.read_csv(path / "test_predictions.tsv", sep="\t", dtype={"label": str}) for path in folders]
    shown = ("test", "network_alone", "runs", "baselines", "data", "classes")
    return {
        **{key: report[key] for key in shown},
        "probabilities": [table.iloc[:, -1].tolist() for table in tables],
    }


def _frozen(one: PromoterSet, inputs: Mapping[str, Any], model: Path, folder: Path) -> dict[str, Any]:
    """Scores of a head on features of a frozen model, without the regression's help."""
    run = folder / "run"
    request = resolve(
        task=one.task, out=run, config=None, overrides=(), flags={"train.freeze": True}, from_model=model, seeds=1,
        resume=run.exists(), inputs=inputs,
    )  # fmt: skip
    bundle = start_bundle(model)
    settings = shaped(request.settings, bundle)
    data = labelled_data(one.task, request.inputs, settings.data)
    start = make_start(request, settings, data, bundle, {})
    found, network = train_seed(start, data, settings.train.seed, run, run.exists())
    on_valid, on_test = (logits_of(network, split, torch.device("cpu")) for split in (data.valid, data.test))
    probabilities = softmax(on_test, fit_temperature(data.valid.labels, on_valid, lowest=0.01))
    scored = measure(data.test.labels, probabilities).to_dict()
    return {"runs": [{"seconds": found.seconds, "test": scored}], "probabilities": [probabilities[:, -1].tolist()]}


def _cnns(data: LabelledData, seeds: int) -> dict[str, Any]:
    """Small CNNs of several seeds, where sequences are aligned."""
    n_bases = sum(len(split) for split in data.splits().values()) * data.window
    if not data.aligned or n_bases > _MOST_LETTERS:
        return {"runs": [], "probabilities": []}
    tables = [(letter_table(list(split), data.window), split.labels) for split in data.splits().values()]
    fitted = [cnn_baseline(tables[0], tables[1], tables[2], len(data.classes), seed=seed) for seed in range(seeds)]
    return {
        "runs": [{"seed": seed, **one.to_dict()} for seed, one in enumerate(fitted)],
        "probabilities": [one.probabilities[:, -1].tolist() for one in fitted],
    }


def _labels(data: LabelledData) -> dict[str, Any]:
    """The test labels, and what nearly the same sequences are called in training."""
    length = int(np.median(data.train.lengths()))
    shares, where = closest(sketches(iter(data.test), length), sketches(iter(data.train), length))
    near = shares >= _NEAR
    same = data.train.labels[where[near]] == data.test.labels[near]
    return {
        "test": data.test.labels.tolist(), "near": int(near.sum()), "near_same_label": int(same.sum()),
        "near_other_label": int((~same).sum()),
    }  # fmt: skip


def scores(labels: np.ndarray, last: np.ndarray) -> dict[str, float]:
    """Scores of the probabilities (M,) of the last of two classes."""
    found = measure(labels, np.stack([1 - last, last], 1))
    return {"macro_f1": found.macro_f1, "mcc": found.mcc, "accuracy": found.accuracy, "auroc": float(found.auroc or 0)}
