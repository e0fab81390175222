"""Every notebook runs from top to bottom in a fresh process and still prints what it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    program = "\n".join("".join(cell["source"]) for cell in cells)
    shown = "".join(text for cell in cells for output in cell["outputs"] for text in output.get("text", ()))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Rounding differs from processor to processor; the words and the count of figures do not.
    assert NUMBER.sub("#", done.stdout) == NUMBER.sub("#", shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_only(path: Path) -> None:
    code = [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert not re.search(r"import _|\._[a-z]", "".join(line for lines in code for line in lines))
