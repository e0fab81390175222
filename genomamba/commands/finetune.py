"""`genomamba finetune`: labelled sequences to a classifier, over one or more seeds, with an honest report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genomamba.classifier.baselines import fit_baselines
from genomamba.classifier.card import save_classifier
from genomamba.classifier.config import FinetuneConfig
from genomamba.classifier.examples import LabelledData
from genomamba.classifier.held_out import judge_seed
from genomamba.classifier.read_before import Reading, pretraining_note
from genomamba.classifier.report import build_report, chosen, comparison_table, write_report
from genomamba.classifier.report_page import write_finetune_page
from genomamba.classifier.request import Request, resolve
from genomamba.classifier.tasks.of_run import labelled_data
from genomamba.classifier.training import make_start, shaped, start_bundle, train_seed
from genomamba.classifier.typicality import Typicality, Unlike
from genomamba.prediction.rows import ABSTAIN
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint
from mamba_training.devices import scoring_device
from mamba_training.progress import say
from mamba_training.ranks import is_first_process


def run_finetune(
    *,
    task: str,
    out: Path,
    config: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    from_model: Path | None = None,
    pooling: str | None = None,
    seeds: int | None = None,
    resume: bool = False,
    **inputs: Any,
) -> dict[str, Any]:
    """Trains, chooses on validation, scores on test and writes run folder, bundle and report.

    Args:
        task: species, promoter, table or intervals.
        out: the run folder; with several seeds, each has its own under `seeds/`.
        config, overrides, flags: as `load_config` takes them.
        from_model: bundle or run folder to start from.
        pooling: from positions to one vector, in place of `head.pooling`.
        seeds: how many models are trained, each with its own seed; the best on validation becomes `out/model`.
        resume: go on with the run in `out`; whatever isn't said again is as the run was started.
        inputs: the task's files, as the command line names them.

    Returns:
        The report for programs, and under `text` for people; empty on all but the first of several processes.

    Raises:
        UserError: something about the files or settings.
        Interrupted: stopped; resumable with `resume`.
    """
    request = resolve(
        task=task, out=out, config=config, overrides=overrides, from_model=from_model, seeds=seeds, resume=resume,
        flags={**(flags or {}), "head.pooling": pooling}, inputs=inputs,
    )  # fmt: skip
    bundle = start_bundle(request.from_model)
    settings = shaped(request.settings, bundle)
    data = _load(request, settings)
    for line in (*(f"note: {warning}" for warning in data.warnings), _overview(data)):
        say(line)
    content = {str(path): fingerprint(path).to_dict() for path in request.files()}
    start = make_start(request, settings, data, bundle, content)
    began = start.recorded["from"] is not None
    before = None if bundle is None else Reading.of_training_record(bundle.config.get("training", {}), bundle.path)
    pretrained = pretraining_note(before, data) if began else None
    if pretrained is not None:
        say(f"note: {pretrained[1]}")
    device = scoring_device(settings.train.accelerator)
    results, networks, baselines = [], {}, None
    for seed in range(settings.train.seed, settings.train.seed + request.seeds):
        folder = out if request.seeds == 1 else out / "seeds" / str(seed)
        run, networks[seed] = train_seed(start, data, seed, folder, resume)
        if is_first_process():
            baselines = baselines or fit_baselines(data, say)
            results.append(judge_seed(networks[seed], data, seed, folder, run, device, baselines))
    if baselines is None:
        return {}
    typicality = Typicality.of(data)
    report = build_report(data, results, baselines, Unlike.of(typicality, data.test), pretrained)
    best = chosen(results)
    networks[best.seed].know_typical(typicality)
    write_report(out, report, results, data)
    write_finetune_page(out, report)
    read = Reading.of_training(data, before) if not began or before is not None else None
    save_classifier(out / "model", networks[best.seed], start.settings, report, best, content, read)
    return {"out": str(out), "model": str(out / "model"), **report, "text": _text(report, out)}


def _load(request: Request, settings: FinetuneConfig) -> LabelledData:
    data = labelled_data(request.task, request.inputs, settings.data)
    if ABSTAIN in data.classes:
        raise UserError(f"a class may not be called {ABSTAIN!r}", fix="rename it")
    return data


def _overview(data: LabelledData) -> str:
    counts = "; ".join(
        f"{split} {sum(row.values()):,} ({', '.join(f'{name} {n:,}' for name, n in row.items())})"
        for split, row in data.counts().items()
    )
    return f"{len(data.classes)} classes, window {data.window:,}: {counts}"


def _text(report: Mapping[str, Any], out: Path) -> str:
    return "\n".join(
        [comparison_table(report), *report["verdict"], f"report: {out / 'report.html'}", f"model:  {out / 'model'}"]
    )
