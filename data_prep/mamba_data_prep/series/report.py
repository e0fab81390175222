"""What reading a file did to it: each repair under its rule's name, and what was noticed but left as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHOWN = 5
"""Lines and examples that a finding keeps; its count tells of the rest."""


@dataclass(frozen=True)
class Finding:
    """One rule that was applied, or one fact that was noticed.

    Attributes:
        rule: the rule's name, the same in every report.
        what: one sentence: what was found and what became of it.
        count: how many cells, rows or series it concerns.
        lines: the first few lines of the file (1-based) where it happened.
        examples: the first few (before, after) pairs, as text.
        column: the column or series concerned, if it is one.
    """

    rule: str
    what: str
    count: int = 1
    lines: tuple[int, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    column: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Gives the finding as values that JSON can hold."""
        return {
            "rule": self.rule,
            "what": self.what,
            "count": self.count,
            "lines": list(self.lines),
            "examples": [list(pair) for pair in self.examples],
            "column": self.column,
        }


@dataclass
class IngestReport:
    """How one file was understood (`detected`), what was repaired (`findings`), and what a user should know (`notes`).

    A finding means that the table differs from the file. A note changes nothing: missing values that stay missing, a
    constant series, a choice that was made between readings.
    """

    path: str = ""
    detected: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def repair(self, rule: str, what: str, **details: Any) -> None:
        """Records something that was changed; `details` are the other fields of `Finding`."""
        self.findings.append(_finding(rule, what, details))

    def note(self, rule: str, what: str, **details: Any) -> None:
        """Records something that was noticed and left as it was."""
        self.notes.append(_finding(rule, what, details))

    def to_dict(self) -> dict[str, Any]:
        """Gives the report as values that JSON can hold."""
        return {
            "path": self.path,
            "detected": dict(self.detected),
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": [note.to_dict() for note in self.notes],
        }

    def to_text(self) -> str:
        """Gives the report as plain lines."""
        lines = [f"{self.path}"]
        lines += [f"  {name}: {value}" for name, value in self.detected.items()]
        for title, entries in (("repaired", self.findings), ("noticed", self.notes)):
            lines += [f"{title}:" if entries else f"{title}: nothing"]
            lines += [f"  {entry.rule} ({entry.count:,}): {entry.what}{_where(entry)}" for entry in entries]
        return "\n".join(lines)


def _finding(rule: str, what: str, details: dict[str, Any]) -> Finding:
    lines = tuple(int(line) for line in details.pop("lines", ())[:SHOWN])
    examples = tuple((str(a), str(b)) for a, b in details.pop("examples", ())[:SHOWN])
    return Finding(rule, what, lines=lines, examples=examples, **details)


def _where(entry: Finding) -> str:
    if not entry.lines:
        return ""
    more = ", ..." if entry.count > len(entry.lines) else ""
    return f" [line{'s' if len(entry.lines) > 1 else ''} {', '.join(f'{line:,}' for line in entry.lines)}{more}]"
