"""The command line. Each command checks its arguments, imports what it needs and calls one function.

Nothing heavy is imported at the top, so that help, completion and argument errors answer at once.
Exit codes: 0 done, 2 the user's input, 3 stopped but resumable, 1 a bug.
"""

from __future__ import annotations

from genomamba.command_lines import models, reading, training
from genomamba.command_lines.group import cli

__all__ = ["cli", "main", "models", "reading", "training"]


def main() -> None:
    """Entry point of the `genomamba` program."""
    cli(prog_name="genomamba")
