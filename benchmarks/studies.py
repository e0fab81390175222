"""A study's figures taken into the documentation: `genomamba reproduce` runs or goes on, its tables are recorded.

    python -m benchmarks.studies STUDY --data FOLDER --out RUN [--set KEY=VALUE ...]

The tables go to `results/study_STUDY.json`, the plot to `docs/images/study-STUDY.png`. What is finished in the folder
is not computed again, so that a study which was run by its own command is recorded in seconds.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.common import print_table, save_results
from genomamba.commands.reproduce import run_reproduce, study_settings
from genomamba.studies import STUDIES, study_named

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    """Runs the study and records its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", choices=list(STUDIES))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    if given.study is None or given.out is None:
        print("benchmarks.studies: nothing to do without STUDY --out RUN")
        return
    asked: dict[str, Any] = {
        "name": given.study, "data": given.data, "out": given.out, "overrides": given.overrides,
        "resume": given.out.exists(), "flags": {},
    }  # fmt: skip
    settings, folder = study_settings(**asked)
    found = run_reproduce(**asked)
    tables = {key(title): rows for title, rows in found["tables"].items() if rows}
    for title, rows in tables.items():
        print_table(title, rows)
    files = [folder / file.path for file in study_named(given.study).files(settings)]
    save_results(
        f"study_{given.study}",
        {"settings": found["settings"], "words": found["words"], **tables},
        data=files,
        seeds=range(getattr(settings, "seeds", 0)),
    )
    shutil.copyfile(given.out / "plot.png", IMAGES / f"study-{given.study}.png")


def key(title: str) -> str:
    """A table's name in the file: its title in small letters, joined."""
    return re.sub(r"\W+", "_", title.lower()).strip("_")


if __name__ == "__main__":
    main()
