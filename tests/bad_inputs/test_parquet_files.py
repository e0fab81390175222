"""Parquet files that are broken inside, each refused by name before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import read_series


@pytest.mark.parametrize(("name", "cell"), [("y", "QQQQ"), ("QQQQ", "1")], ids=["a cell", "a column's name"])
def test_parquet_whose_text_is_no_text_is_refused(name: str, cell: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"ds": ["2020-01-01", "2020-01-02"], name: ["1", cell]}), path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(UserError, match="broken Parquet") as caught:
        read_series(path)
    assert (caught.value.path, caught.value.line) == (path, 1)
