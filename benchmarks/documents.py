"""Writes the tables of the documentation from the files in `results/`: `python -m benchmarks.documents`.

A table's place is marked in the text by `<!-- table FILE.KEY -->` and `<!-- end of table -->`; what stands between is
replaced by the rows under KEY in `results/FILE.json`. Columns that the text does not want are named behind the key:
`<!-- table FILE.KEY without tokens/s; seconds -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, format_number

PLACE = re.compile(r"(<!-- table (\w+)\.(\w+)(?: without ([^>]*?))? -->\n).*?(<!-- end of table -->)", re.DOTALL)
DOCUMENTS = [
    path for path in sorted((Path(__file__).parent.parent / "docs").glob("**/*.md")) if PLACE.search(path.read_text())
]


def markdown(rows: Sequence[Mapping[str, Any]], without: Sequence[str] = ()) -> str:
    """A table with one row a mapping; lists, which hold single timings, are left out, and so are unwanted columns."""
    columns = [key for key, value in rows[0].items() if not isinstance(value, list) and key not in without]
    lines = [columns, ["---"] * len(columns), *([format_number(row[key]) for key in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_tables(text: str, results: Path = RESULTS) -> str:
    """The text, its tables written anew; a table whose figures have not been measured says so."""

    def table(match: re.Match[str]) -> str:
        head, name, key, without, tail = match.groups()
        path = results / f"{name}.json"
        rows = json.loads(path.read_text()).get(key) if path.exists() else None
        return head + (markdown(rows, (without or "").split("; ")) if rows else "Not measured yet.\n") + tail

    return PLACE.sub(table, text)


def main() -> None:
    """Writes the tables of every page that has a place for one."""
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text()))
        print(f"tables written into {path}")


if __name__ == "__main__":
    main()
