"""`genomamba rethreshold`: another threshold for a table of predictions, without running the model again."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genomamba.commands.checks import check_rethreshold
from genomamba.prediction.kraken import write_kraken_report
from genomamba.prediction.read_table import read_predictions
from genomamba.prediction.rows import ABSTAIN, LOW, UNLIKE, Least, Predictions, decide, no_predictions
from genomamba.prediction.summary_page import write_summary_page
from genomamba.prediction.writers import table_writer
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import write_sidecar


def run_rethreshold(
    *,
    table: Path,
    out: Path,
    min_confidence: float = 0.0,
    min_typicality: float = 0.0,
    kraken_report: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a table of predictions again, in which rows below another confidence or typicality abstain.

    Args:
        table: that `genomamba classify` wrote: TSV, CSV, JSON lines or Parquet.
        out: the new table or BED or GFF3 file; its extension is its format.
        min_confidence: rows whose likeliest class has less abstain; rows that were not scored stay as they are.
        min_typicality: rows that are less typical of the training data abstain.
        kraken_report: a report in Kraken's format beside it.
        report: a page on the new table, `.html`.
        overwrite: replace an existing output.

    Returns:
        `rows`, `changed` and `counts`, and under `text` the same for people.

    Raises:
        UserError: the table cannot be read, or the output cannot be written.
    """
    check_rethreshold(table=table, out=out, kraken_report=kraken_report, report=report, overwrite=overwrite)
    chunks = read_predictions(table)
    first = next(chunks, None)
    if first is None:
        raise UserError("the table is empty", path=table)
    if min_typicality and np.isnan(first.typicality).all() and np.isfinite(first.probabilities).any():
        raise UserError(
            "the table does not say how typical its rows are", path=table, fix="leave --min-typicality out",
        )  # fmt: skip
    settings = {"min_confidence": min_confidence, "min_typicality": min_typicality}
    least = Least(min_confidence, min_typicality)
    counts: Counter[str] = Counter()
    changed = 0
    with table_writer(out, no_predictions(first.classes, regions=first.name is not None)) as writer:
        for rows in itertools.chain([first], chunks):
            again = _decided(rows, least)
            changed += sum(a != b for a, b in zip(rows.predicted, again.predicted, strict=True))
            counts.update(again.predicted)
            writer.write(again)
    if kraken_report is not None:
        write_kraken_report(kraken_report, first.classes, counts)
    if report is not None:
        facts = {"decided again": table, "table": out, **settings}
        write_summary_page(report, out, f"{table.name} decided again", facts, {})
    result = {"rows": sum(counts.values()), "changed": changed, "counts": dict(counts)}
    if str(out) != "-":
        write_sidecar(out, inputs=[table], extra={"settings": settings, "result": result})
    shown = [name for name in (*first.classes, ABSTAIN) if counts[name]]
    text = [f"{result['rows']:,} rows, {changed:,} of them changed -> {out}"]
    text += [f"  {name:<20} {counts[name]:>12,}" for name in shown]
    return {"out": str(out), **result, "text": "\n".join(text)}


def _decided(rows: Predictions, least: Least) -> Predictions:
    """The same rows, decided anew; those that were not scored keep their reason."""
    unscored = ["" if reason.startswith((LOW, UNLIKE)) else reason for reason in rows.reason]
    predicted, reasons = decide(rows.classes, rows.probabilities, rows.typicality, least, unscored)
    return replace(rows, predicted=predicted, reason=reasons)
