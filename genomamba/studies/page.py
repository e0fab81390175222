"""A study's findings as files: `table.tsv`, `findings.json`, `plot.png` and a page, `README.md`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genomamba.studies.charts import draw
from genomamba.studies.study import Findings, Row
from mamba_data_prep.atomic import atomic_write


def write_findings(out: Path, findings: Findings, about: dict[str, Any]) -> None:
    """Writes a study's table, its figures for programs, its plot and its page.

    Args:
        out: the folder.
        findings: of the study.
        about: what the figures came from: study, settings, files, versions, command.
    """
    rows = next(iter(findings.tables.values()))
    with atomic_write(out / "table.tsv") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([["" if value is None else value for value in row.values()] for row in rows])
    with atomic_write(out / "findings.json") as file:
        json.dump(
            {**about, "tables": dict(findings.tables), "words": list(findings.words)}, file, indent=2, default=str
        )
        file.write("\n")
    draw(findings.chart, out / "plot.png", findings.title)
    with atomic_write(out / "README.md") as file:
        file.write(_page(findings, about))


def markdown(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: Any) -> str:
    """Four decimals; whole numbers with their thousands."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _page(findings: Findings, about: dict[str, Any]) -> str:
    tables = "".join(f"\n## {title}\n\n{markdown(rows)}" for title, rows in findings.tables.items() if rows)
    said = "".join(f"* {line}\n" for line in findings.words)
    protocol = "".join(f"* {line}\n" for line in findings.protocol)
    return (
        f"# {findings.title}\n\n{findings.question}\n\n{said}\n![{findings.title}](plot.png)\n{tables}"
        f"\n## How it was measured\n\n{protocol}\n    {about['command']}\n"
    )
