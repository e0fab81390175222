"""Every notebook runs from top to bottom in a fresh process and still prints what it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
WORD = re.compile(r"\S+|\s+")
NUMBER = re.compile(r"(-?[\d,]*\.?\d+(?:e[+-]?\d+)?)(%?[,.;:)]*)")


def words(text: str) -> list[object]:
    """The text word by word; a word that is a number comes as the number, and what stands right behind it."""
    found: list[object] = []
    for word in WORD.findall(text):
        number = NUMBER.fullmatch(word)
        found += [word] if number is None else [float(number[1].replace(",", "")), number[2]]
    return found


def differing(printed: str, shown: str) -> list[tuple[object, object]]:
    """Words that are not alike; rounding differs from processor to processor, and so numbers may by two per cent."""
    pairs = zip_longest(words(printed), words(shown))
    return [
        (one, other)
        for one, other in pairs
        if one != (pytest.approx(other, rel=0.02) if isinstance(other, float) else other)
    ]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    program = "\n".join("".join(cell["source"]) for cell in cells)
    shown = "".join(text for cell in cells for output in cell["outputs"] for text in output.get("text", ()))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert differing(done.stdout, shown) == []


@pytest.mark.parametrize(
    ("printed", "alike"),
    [
        ("2024-01-31 loss 1.25, 80% inside\n", True),
        ("2024-01-31 loss 1.26, 81% inside\n", True),
        ("2024-01-30 loss 1.25, 80% inside\n", False),
        ("2024-01-31 loss 1.35, 80% inside\n", False),
        ("2024-01-31 loss 1.25, 70% inside\n", False),
        ("2024-01-31 loss 1.25, 80% outside\n", False),
        ("2024-01-31 loss 1.25, 80% inside\n7\n", False),
        ("2024-01-31 loss nan, 80% inside\n", False),
    ],
)
def test_numbers_are_compared_too(printed: str, alike: bool) -> None:
    assert (differing(printed, "2024-01-31 loss 1.25, 80% inside\n") == []) == alike


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names_only(path: Path) -> None:
    code = [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    assert not re.search(r"import _|\._[a-z]", "".join(line for lines in code for line in lines))
