"""`tsmamba doctor`: a report, a cleaned file, and rules that give it again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from mamba_data_prep.series import ReadOptions, read_series
from tsmamba.cli import cli

GERMAN = (
    "\ufeffUmsatz der Filialen\r\n\r\n"
    "Filiale;Tag;Umsatz\r\n"
    + "".join(f'Nord;{day:02d}.03.2024;"1.{day:03d},50"\r\n' for day in range(1, 21) if day != 9)
    + "Nord;21.03.2024;n/a\r\n"
).encode("utf-8-sig")
"""A byte order mark, a title, semicolons, dates by day, decimal commas, a day left out and a word for nothing."""

SHUFFLED = "time\tload\n" + "".join(
    f"2024-05-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z\t{20 + hour % 24}\n" for hour in [*range(30, 60), *range(30)]
)
"""Tabs, a zone on each time, and the older half of the rows below."""

FILES = {"german": GERMAN, "shuffled": SHUFFLED.encode()}


@pytest.fixture(params=sorted(FILES))
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.csv"
    path.write_bytes(FILES[request.param])
    return path


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["doctor", *map(str, arguments)], catch_exceptions=False)


def test_the_rules_give_the_cleaned_table_again(odd: Path, tmp_path: Path) -> None:
    before = odd.read_bytes()
    result = doctor(odd, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    clean, rules = Path(facts["clean"]), Path(facts["rules"])
    assert odd.read_bytes() == before
    by_rules, from_clean = read_series(odd, ReadOptions.load(rules)), read_series(clean)
    pd.testing.assert_frame_equal(by_rules.frame, from_clean.frame)
    again = doctor(odd, "--rules", rules, "--out", tmp_path / "again.csv", "--rules-out", tmp_path / "again.yaml")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.csv").read_bytes() == clean.read_bytes()
    assert (tmp_path / "again.yaml").read_text() == rules.read_text()


def test_a_cleaned_table_has_nothing_to_repair(odd: Path, tmp_path: Path) -> None:
    clean = Path(json.loads(doctor(odd, "--json").stdout)["clean"])
    second = doctor(clean, "--json", "--out", tmp_path / "twice.csv", "--rules-out", tmp_path / "twice.yaml")
    assert json.loads(second.stdout)["findings"] == []
    assert (tmp_path / "twice.csv").read_bytes() == clean.read_bytes()


def test_values_and_dates_are_read_as_they_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "german.csv"
    path.write_bytes(GERMAN)
    clean = Path(json.loads(doctor(path, "--json").stdout)["clean"])
    frame = read_series(clean).frame
    assert frame["ds"].tolist() == list(pd.date_range("2024-03-01", "2024-03-21"))
    expected = np.where(np.isin(np.arange(1, 22), (9, 21)), np.nan, 1000.5 + np.arange(1, 22))
    np.testing.assert_array_equal(frame["y"].to_numpy(), expected)


def test_outputs_that_lie_there_are_kept(odd: Path) -> None:
    assert doctor(odd).exit_code == 0
    again = doctor(odd)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert doctor(odd, "--overwrite").exit_code == 0
    over = doctor(odd, "--out", odd, "--overwrite")
    assert over.exit_code == 2
    assert "the output is the input" in over.stderr


def test_the_report_for_people_names_each_repair(odd: Path) -> None:
    findings = json.loads(doctor(odd, "--json").stdout)["findings"]
    text = doctor(odd, "--overwrite").stdout
    assert findings
    assert all(finding["rule"] in text for finding in findings)


@pytest.mark.parametrize(
    ("name", "text", "rule", "words"),
    [
        ("ended", "ds,a,b\n" + "".join(f"{2000 + n},{n},{n if n < 30 else ''}\n" for n in range(40)), "ended_series",
         "b (the last 10 rows)"),
        ("counted", "Date,y\n" + "".join(f"{44000 + n},{n}\n" for n in range(20)), "spreadsheet_days", "export them"),
    ],
    ids=["ended", "counted"],
)  # fmt: skip
def test_what_may_mislead_is_noticed(name: str, text: str, rule: str, words: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.csv").write_text(text)
    notes = {note.rule: note.what for note in read_series(tmp_path / f"{name}.csv").report.notes}
    assert words in notes[rule]
