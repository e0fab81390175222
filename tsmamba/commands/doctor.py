"""`tsmamba doctor`: what reading does to a file, the cleaned file, and the rules that give it again."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mamba_data_prep.series import Finding, IngestReport
from mamba_data_prep.series.clean import write_clean
from tsmamba.commands.checks import check_doctor, clean_files
from tsmamba.commands.reading import read_as_told


def run_doctor(
    *,
    csv: Path,
    reading: Mapping[str, Any] | None = None,
    out: Path | None = None,
    rules_out: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Read a file, report, and write the cleaned table and the rules.

    Args:
        csv: the file.
        reading: the command line's reading options.
        out: the cleaned table; `NAME.clean.csv` beside the file by default.
        rules_out: the rules as YAML; `NAME.rules.yaml` by default.
        overwrite: whether to replace a file that lies there.
        quiet: whether to leave out the text for people.

    Returns:
        The report, the paths written, and `text`. Reading the same file with the rules gives the same cleaned table.

    Raises:
        UserError: the file cannot be read without guessing, or an output lies there already.
    """
    out, rules_out = clean_files(csv, out, rules_out)
    check_doctor(csv=csv, reading=reading or {}, out=out, rules_out=rules_out, overwrite=overwrite)
    series = read_as_told(csv, reading or {})
    write_clean(series, out)
    series.options.save(rules_out)
    result = {**series.report.to_dict(), "clean": str(out), "rules": str(rules_out)}
    return result if quiet else {**result, "text": _text(series.report, out, rules_out)}


def _text(report: IngestReport, out: Path, rules: Path) -> str:
    """The report as tables as wide as the terminal."""
    buffer = io.StringIO()
    width = max(80, min(shutil.get_terminal_size((100, 24)).columns, 140))
    console = Console(file=buffer, width=width, highlight=False, no_color=True, markup=False)
    console.print(f"{report.path}")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for name, value in report.detected.items():
        facts.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(facts)
    for title, entries in (("Repaired", report.findings), ("Noticed, left as it is", report.notes)):
        if entries:
            console.print(_entries(title, entries))
    if not report.findings:
        console.print("Nothing had to be repaired.")
    console.print(f"cleaned table: {out}\nrules:         {rules}")
    return buffer.getvalue().rstrip()


def _entries(title: str, entries: Sequence[Finding]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("times", justify="right")
    table.add_column("what")
    table.add_column("lines", max_width=18)
    table.add_column("for example", max_width=34)
    for entry in entries:
        what = f"{entry.column}: {entry.what}" if entry.column else entry.what
        lines = ", ".join(map(str, entry.lines[:3])) + (", ..." if entry.count > 3 and entry.lines else "")
        example = " -> ".join(_visible(text) for text in entry.examples[0]) if entry.examples else ""
        table.add_row(entry.rule, f"{entry.count:,}", what, lines, example)
    return table


def _visible(text: str) -> str:
    return text if text.strip() else "(nothing)"
