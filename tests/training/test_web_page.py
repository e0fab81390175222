"""Pages that hold everything, and say what they were given."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from mamba_training import web_page as web


class _Read(HTMLParser):
    """Collects the text of cells, and refuses tags that were not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        if tag not in ("img", "meta"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_a_page_says_what_it_was_given_and_needs_nothing_else(tmp_path: Path) -> None:
    odd = "<b>&\"'"
    parts = [
        web.heading(odd), web.words(odd), web.note(odd), web.details(odd, web.words(odd)), web.picture(b"png", odd),
        web.table(["name", odd], [[odd, 0.123456], [None, np.int64(12345)], [True, np.float32("nan")]], [1]),
    ]  # fmt: skip
    web.write_page(tmp_path / "p.html", odd, parts)
    text = (tmp_path / "p.html").read_text()
    read = _Read()
    read.feed(text)
    assert read.open == []
    assert read.cells == ["name", odd, odd, "0.1235", "", "12,345", "True", ""]
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in read.sources] == [b"png"]
    assert text.count("class='taken'") == 1
    assert "http" not in text
    assert "<b>" not in text
