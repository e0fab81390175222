"""The figures in the documentation are those of the measurements, never typed."""

from __future__ import annotations

import json

import pytest

from benchmarks import documents


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
