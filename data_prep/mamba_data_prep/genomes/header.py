"""What introduces a record's bases, in whatever format they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xxhash

from mamba_data_prep.errors import UserError


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a record: its id, the rest of its title, and the 1-based line where it begins."""

    record: str
    description: str
    line: int


class UniqueIds:
    """Refuses an id that an earlier record of the file has, at about 70 bytes of memory a record."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._seen: set[int] = set()

    def add(self, header: Header) -> None:
        """Notes the id of the next record.

        Raises:
            UserError: an earlier record has this id.
        """
        key = xxhash.xxh3_64_intdigest(header.record.encode())
        if key in self._seen:
            fix = "give every record its own id (seqkit rename does so)"
            problem = "this id was used by an earlier record"
            raise UserError(problem, path=self.path, line=header.line, record=header.record, fix=fix)
        self._seen.add(key)
