"""Headers that look like data, rows that are cut, and covariates known ahead beside a named target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions, read_series


@pytest.mark.parametrize(
    ("header", "names"),
    [("date,0,1,OT", ["0", "1", "OT"]), (",0,1,2", ["0", "1", "2"]), ("Date,1001,1002,1003", ["1001", "1002", "1003"])],
    ids=["benchmark", "pandas", "stores"],
)
def test_columns_may_be_named_by_numbers(header: str, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    days = pd.date_range("2021-01-01", periods=30).strftime("%Y-%m-%d")
    path.write_text("\n".join([header, *(f"{day},{row}.5,{row * 2}.5,{row % 7}.5" for row, day in enumerate(days))]))
    series = read_series(path)
    assert series.ids == names
    assert len(series.frame) == 90


def test_a_header_with_one_cut_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.csv").write_text("a,b\n1")
    with pytest.raises(UserError, match="the only row below the header is cut short") as caught:
        read_series(tmp_path / "cut.csv")
    assert caught.value.line == 2


def test_a_named_target_leaves_the_other_columns_to_the_future_file(tmp_path: Path) -> None:
    days = pd.date_range("2021-01-01", periods=40)
    table = pd.DataFrame({"ds": days, "y": np.arange(40) % 7 + 0.5, "x": np.arange(40) % 5 + 0.25})
    table.iloc[:30].to_csv(tmp_path / "past.csv", index=False)
    table.iloc[30:][["ds", "x"]].to_csv(tmp_path / "ahead.csv", index=False)
    series = read_series(tmp_path / "past.csv", ReadOptions(target=("y",)), future=tmp_path / "ahead.csv")
    assert (series.ids, series.future_covariates) == (["y"], ("x",))
    assert series.future is not None
    assert len(series.future) == 10
