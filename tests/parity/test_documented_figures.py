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
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FIGURE = re.compile(
    r"(?<![\w.,-])(?P<number>\d[\d,]*(?:\.\d+)?) ?"
    r"(?P<unit>tokens/s|bases/s|bits|nats|MASE|MSE|MAE|ms\b|times (?:as|faster|slower)|MB/s)"
    r"|(?<![\w.,-])(?P<decimals>\d[\d,]*\.\d{3,})(?!\w|\.\d)"
)
"""Numbers with the unit of a measurement, and any of three decimals or more, which only measuring gives."""
BLOCKS = re.compile(r"<!-- table.*?<!-- end of table -->|^```.*?^```|^ {4}.*?$|<!--.*?-->", re.DOTALL | re.MULTILINE)
"""Tables that are written from the results, and what a program printed."""
LINKS = re.compile(r"\]\([^)]*\)")
SHOWN = re.compile(r"<!-- table (\w+)\.")
FIGURES = re.compile(r"[\d\s.,/±%+-]+")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


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
    elif isinstance(tree, str) and FIGURES.fullmatch(tree):
        yield from map(float, NUMBER.findall(tree.replace(",", "")))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield float(tree)


def measured(text: str) -> list[float]:
    """The numbers of the files whose tables a page shows; of all files for a page without a table."""
    shown = set(SHOWN.findall(text))
    files = [path for path in RESULTS.glob("*.json") if not shown or path.stem in shown]
    trees = [json.loads(path.read_text()) for path in files]
    return sorted({value for tree in trees for key in tree.keys() - {"machine", "made"} for value in leaves(tree[key])})


def unmeasured(text: str, values: list[float]) -> set[str]:
    """The figures in a text's sentences that no measured number rounds to."""
    found = set()
    for figure in FIGURE.finditer(LINKS.sub("]", BLOCKS.sub("", text))):
        number = (figure["number"] or figure["decimals"]).replace(",", "")
        half = 0.5 * 10.0 ** -len(number.partition(".")[2])
        at = bisect.bisect_left(values, float(number) - half * 1.001)
        if at == len(values) or values[at] > float(number) + half * 1.001:
            found.add(figure[0])
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_figures_in_sentences_were_measured(path: Path) -> None:
    text = path.read_text()
    assert unmeasured(text, measured(text)) == set()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_tables_of_decimals_are_written_from_results(path: Path) -> None:
    lines = BLOCKS.sub("", path.read_text()).splitlines()
    assert [line for line in lines if line.startswith("|") and re.search(r"\| *[\d,]+\.\d+ *\|", line)] == []


def test_a_typed_figure_is_noticed() -> None:
    values = [1.23456, 7100.4]
    assert unmeasured("It costs 1.2346 bits and 7,100 tokens/s.", values) == set()
    assert unmeasured("It costs 1.2345 bits and 7,101 tokens/s.", values) == {"1.2345 bits", "7,101 tokens/s"}
    assert unmeasured("It costs 1.235, or 1.2346, and 7.100 at 1.236.", values) == {"7.100", "1.236"}
    assert unmeasured("[a paper](https://example.org/2106.00170) on 1.2 of 3.", values) == set()
    assert unmeasured("```\n9.9 bits\n```\n<!-- table a.b -->\n| 9.9 bits |\n<!-- end of table -->\n", values) == set()


def test_figures_are_looked_for_in_the_files_that_a_page_shows() -> None:
    text = "<!-- table promoters.rows -->\n<!-- end of table -->\n"
    own = json.loads((RESULTS / "promoters.json").read_text())
    parts = [own[key] for key in own.keys() - {"machine", "made"}]
    assert set(measured(text)) == {float(number) for part in parts for number in leaves(part)}
    assert len(measured(text)) < len(measured("")) / 50
    assert list(leaves(["0.3609/0.3883 ± 0.0003", {"a": "+1,402%"}, "line 3", True])) == [0.3609, 0.3883, 0.0003, 1402]
