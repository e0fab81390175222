"""The page: each of its parts, offline, and shown by a browser without a complaint."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tsmamba.cli import cli

BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")
HEADINGS = ["Forecast", "Leaderboard", "Backtest", "What reading did to the file"]
ID = '<b>5 & "six"'


@dataclass
class Page(HTMLParser):
    """What a browser would find in a page."""

    headings: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name.rpartition(":")[2] in ("src", "href", "data")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags[-1:] in (["td"], ["th"]):
            self.tables[-1][-1][-1] += data
        if self.tags[-1:] == ["h2"]:
            self.headings.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page, and the forecast that it shows, of a series with an odd name and a gap."""
    path = tmp_path_factory.mktemp("page")
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    values = 20 + 5 * (np.arange(60) % 7) + np.random.default_rng(0).normal(0, 0.3, 60)
    table = pd.DataFrame({"unique_id": ID, "ds": days, "y": values}).drop(index=[20, 21])
    table.to_csv(path / "data.csv", index=False)
    arguments = ["forecast", path / "data.csv", "--horizon", 3, "--method", "seasonal_naive", "--compare"]
    arguments += ["--report", path / "page.html", "--json"]
    result = CliRunner().invoke(cli, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def page(folder: Path) -> Page:
    parsed = Page()
    parsed.feed((folder / "page.html").read_text(encoding="utf-8"))
    return parsed


def test_the_page_has_every_part(page: Page) -> None:
    assert page.headings == HEADINGS
    assert page.tags.count("svg") == page.tags.count("/svg") == 2
    assert page.tags.count("details") == 3
    assert page.tags.count("h1") == 1


def test_the_page_asks_the_network_for_nothing(page: Page, folder: Path) -> None:
    assert page.addresses  # the pictures refer to their own parts
    assert [one for one in page.addresses if not one.startswith("#")] == []
    assert {"script", "link", "img", "iframe", "object"} & set(page.tags) == set()
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "url(http" not in text
    assert "@import" not in text


def test_the_table_is_the_forecast(page: Page, folder: Path) -> None:
    written = pd.read_csv(folder / "data.forecast.csv", dtype=str)
    heads, *rows = page.tables[0]
    assert heads == list(written.columns)
    assert [row[:2] for row in rows] == written[["unique_id", "ds"]].to_numpy().tolist()
    shown = [float(cell) for row in rows for cell in row[2:]]
    np.testing.assert_allclose(shown, written.iloc[:, 2:].astype(float).to_numpy().reshape(-1), rtol=1e-3)


def test_the_leaderboard_holds_every_baseline_and_marks_what_was_taken(page: Page, folder: Path) -> None:
    board = next(table for table in page.tables if table[0][0] == "method")
    assert board[0][1:5] == ["MASE", "RMSSE", "sMAPE", "MAE"]
    assert {row[0] for row in board[1:]} >= {"naive", "seasonal_naive", "drift", "ets", "theta"}
    assert [float(row[1]) for row in board[1:]] == sorted(float(row[1]) for row in board[1:])
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "<tr class='taken'><td>seasonal_naive</td>" in text


def test_the_coverage_of_the_taken_method_is_told_once(page: Page, folder: Path) -> None:
    """From all past dates, as in the printed text; the few origins that compare methods have none beside it."""
    board = next(table for table in page.tables if table[0][0] == "method")
    assert not [head for head in board[0] if head.startswith(("coverage", "width"))]
    record = json.loads((folder / "data.forecast.csv.json").read_text(encoding="utf-8"))
    held = record["interval_coverage"]["80"]
    assert f"80 % intervals held {held:.1%}" in page.text
    assert not [name for row in record["leaderboard"] for name in row if name.startswith(("coverage", "width"))]


def test_names_are_text_and_repairs_are_listed(page: Page) -> None:
    assert ID in page.text
    assert "gaps (2)" in page.text
    assert "line 22" in page.text or "line 21" in page.text


@pytest.mark.slow
def test_a_browser_shows_the_page(folder: Path) -> None:
    """Headless Chromium, cut off from any network, lays out every part without an error."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no Chromium in PATH")
    base = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        "--proxy-server=127.0.0.1:9", "--virtual-time-budget=5000",
    ]  # fmt: skip
    address = (folder / "page.html").as_uri()
    picture = folder / "page.png"
    shot = subprocess.run(
        [*base, f"--screenshot={picture}", "--window-size=1200,3000", address],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in shot.stderr
    assert "net::ERR" not in shot.stderr
    drawn = subprocess.run([*base, "--dump-dom", address], capture_output=True, text=True, timeout=240, check=True)
    seen = Page()
    seen.feed(drawn.stdout)
    assert seen.headings == HEADINGS
    assert seen.tags.count("svg") == 2
    from matplotlib.image import imread

    pixels = np.asarray(imread(picture))
    assert pixels.shape[:2] == (3000, 1200)
    inked = np.flatnonzero((pixels[..., :3] < 0.9).any(axis=(1, 2)))
    assert inked.max() > 1000  # it is longer than a screen
