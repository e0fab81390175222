"""The figures in the documentation are those of the measurements, never typed."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import documents
from benchmarks.common import RESULTS

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FIGURE = re.compile(
    r"(?<![\w.,-])(?P<number>\d[\d,]*(?:\.\d+)?) ?"
    r"(?P<unit>tokens/s|bases/s|bits|nats|MASE|MSE|MAE|ms\b|times (?:as|faster|slower)|MB/s)"
)
BLOCKS = re.compile(r"<!-- table.*?<!-- end of table -->|^```.*?^```|^ {4}.*?$|<!--.*?-->", re.DOTALL | re.MULTILINE)
"""Tables that are written from the results, and what a program printed."""
NOT_RECORDED = {"genomamba.md": {"1.7285 bits"}}
"""Figures in sentences that no file of results holds yet."""


@pytest.mark.parametrize("path", documents.DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_of_the_results(path):
    text = path.read_text()
    assert documents.PLACE.search(text)
    assert documents.with_tables(text) == text, "run `python -m benchmarks.documents`"


def test_a_table_is_written_between_its_marks(tmp_path):
    rows = [{"model": "ours", "tokens/s": 7100.4, "all seconds": [1.0]}, {"model": "theirs", "tokens/s": None}]
    (tmp_path / "speed.json").write_text(json.dumps({"step": rows}))
    end = "<!-- end of table -->\n"
    text = f"a\n<!-- table speed.step -->\nold\n{end}b\n<!-- table speed.no -->\n{end}"
    assert documents.with_tables(text, tmp_path) == (
        "a\n<!-- table speed.step -->\n| model | tokens/s |\n| --- | --- |\n| ours | 7,100 |\n| theirs | - |\n"
        f"{end}b\n<!-- table speed.no -->\nNot measured yet.\n{end}"
    )


def leaves(tree: Any) -> Iterator[float]:
    """Every number of a file of results."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield float(tree)


def measured() -> list[float]:
    return sorted({value for path in RESULTS.glob("*.json") for value in leaves(json.loads(path.read_text()))})


def unmeasured(text: str, values: list[float]) -> set[str]:
    """The figures in a text's sentences that no measured number rounds to."""
    found = set()
    for figure in FIGURE.finditer(BLOCKS.sub("", text)):
        number = figure["number"].replace(",", "")
        half = 0.5 * 10.0 ** -len(number.partition(".")[2])
        at = bisect.bisect_left(values, float(number) - half * 1.001)
        if at == len(values) or values[at] > float(number) + half * 1.001:
            found.add(f"{figure['number']} {figure['unit']}")
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_figures_in_sentences_were_measured(path: Path) -> None:
    assert unmeasured(path.read_text(), measured()) == NOT_RECORDED.get(path.name, set())


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_tables_of_decimals_are_written_from_results(path: Path) -> None:
    lines = BLOCKS.sub("", path.read_text()).splitlines()
    assert [line for line in lines if line.startswith("|") and re.search(r"\| *[\d,]+\.\d+ *\|", line)] == []


def test_a_typed_figure_is_noticed() -> None:
    values = [1.23456, 7100.4]
    assert unmeasured("It costs 1.2346 bits and 7,100 tokens/s.", values) == set()
    assert unmeasured("It costs 1.2345 bits and 7,101 tokens/s.", values) == {"1.2345 bits", "7,101 tokens/s"}
    assert unmeasured("```\n9.9 bits\n```\n<!-- table a.b -->\n| 9.9 bits |\n<!-- end of table -->\n", values) == set()
