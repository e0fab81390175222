"""Errors that are addressed to people: what is wrong, where, the value found, what is accepted, what to do.

Commands turn a `UserError` into one message and exit code 2, and an `Interrupted` into exit code 3; anything else is a
bug and shows its traceback with exit code 1.
"""

from __future__ import annotations

import errno
from pathlib import Path

_ENVIRONMENT = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR),
        *(errno.EISDIR, errno.EFBIG, errno.ENAMETOOLONG),
    )
)
"""What a machine answers to a wrong name, a missing permission or a full disk: nothing that a program did wrong."""


class UserError(Exception):
    """Something in the user's input or settings is wrong, and the message says how to mend it.

    Args:
        problem: what is wrong, one sentence without a full stop.
        path: the file concerned.
        line: 1-based line in that file.
        record: the record's name (FASTA id, VCF position, column).
        found: the offending value; long values are cut when shown.
        accepted: what would have been accepted.
        fix: what to do next.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        record: str | None = None,
        found: object = None,
        accepted: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem, self.path, self.line, self.record = problem, path, line, record
        self.found, self.accepted, self.fix = found, accepted, fix
        super().__init__(self._message())

    def _message(self) -> str:
        where = []
        if self.path is not None:
            where.append(str(self.path) + (f", line {self.line:,}" if self.line is not None else ""))
        elif self.line is not None:
            where.append(f"line {self.line:,}")
        if self.record is not None:
            where.append(f"record {self.record!r}")
        text = f"{', '.join(where)}: {self.problem}" if where else self.problem
        if self.found is not None:
            text += f"\n  found:    {_shortened(self.found)}"
        if self.accepted is not None:
            text += f"\n  accepted: {self.accepted}"
        if self.fix is not None:
            text += f"\n  mend:     {self.fix}"
        return text


class Interrupted(Exception):
    """The work was stopped (Ctrl-C, SIGTERM, time limit); what was done is saved and can be resumed."""

    exit_code = 3


def addressed(error: BaseException) -> tuple[str, int] | None:
    """What a command line says of an error that is addressed to people, and its exit code; None for a bug."""
    if isinstance(error, UserError):
        return f"error: {error}", UserError.exit_code
    if isinstance(error, Interrupted):
        return f"stopped: {error}", Interrupted.exit_code
    if isinstance(error, KeyboardInterrupt):
        by = error.args[0] if error.args else "the keyboard"
        return f"stopped: by {by}; nothing was left half-written", Interrupted.exit_code
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror}", UserError.exit_code
    return None


def _shortened(value: object, limit: int = 80) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"
