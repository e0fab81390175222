"""Odd and broken tables of time series: each is read with exactly the expected values, or refused with line and mend.

Whatever is read is written as a cleaned table too, which must read back alike and need no repair; and the rules must
give that cleaned table again.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import ReadOptions, read_series
from mamba_data_prep.series.clean import write_clean


@dataclass(frozen=True)
class Good:
    """A table that is read: its series' values (None is missing), frequency, first time, and the rules applied."""

    name: str
    content: bytes
    series: dict[str, list[float | None]]
    frequency: str = "D"
    first: str | int = "2020-01-01"
    rules: set[str] = field(default_factory=set)
    options: ReadOptions = field(default_factory=ReadOptions)


@dataclass(frozen=True)
class Bad:
    """A table that is refused: the line, words of the problem, words of the mend."""

    name: str
    content: bytes
    line: int | None
    problem: str
    fix: str
    options: ReadOptions = field(default_factory=ReadOptions)


def daily(*values: object, start: int = 1, head: str = "date,y") -> bytes:
    """A CSV of days in January 2020."""
    rows = [f"2020-01-{start + i:02d},{value}" for i, value in enumerate(values)]
    return "\n".join([head, *rows, ""]).encode()


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), buffer)
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "<xml/>")
    return buffer.getvalue()


FIVE = daily(1, 2, 3, 4, 5)
Y = {"y": [1, 2, 3, 4, 5]}
TEXT = FIVE.decode()
LONG = "unique_id,ds,y\n" + "".join(
    f"{k},2020-01-{d:02d},{v + d}\n" for k, v in (("a", 0), ("b", 10)) for d in (1, 2, 3)
)
TWO = {"a": [1, 2, 3], "b": [11, 12, 13]}
RIVER = [f"2022-03-27T{h:02d}:00:00+0{1 if h < 2 else 2}:00,{i}" for i, h in enumerate((0, 1, 3, 4, 5))]
AUTUMN = ["00:00", "01:00", "02:00", "02:00", "03:00", "04:00"]
GOOD = [
    Good("plain", FIVE, Y),
    Good("no_last_newline", FIVE[:-1], Y),
    Good("crlf", FIVE.replace(b"\n", b"\r\n"), Y),
    Good("cr_only", FIVE.replace(b"\n", b"\r"), Y),
    Good("tabs", FIVE.replace(b",", b"\t"), Y),
    *(
        Good(name, FIVE.replace(b",", mark), Y)
        for name, mark in (("spaces", b" "), ("blank_after_comma", b", "), ("pipes", b"|"), ("semicolons", b";"))
    ),
    Good("all_quoted", ('"' + TEXT[:-1].replace(",", '","').replace("\n", '"\n"') + '"\n').encode(), Y),
    Good("gzip", gzip.compress(FIVE, mtime=0), Y),
    Good("byte_order_mark", b"\xef\xbb\xbf" + FIVE, Y, rules={"byte_order_mark"}),
    Good("utf16", TEXT.encode("utf-16"), Y, rules={"encoding"}),
    Good("utf16_without_mark", TEXT.encode("utf-16-le"), Y, rules={"encoding"}),
    Good("latin1", TEXT.replace("y", "débit").encode("latin-1"), {"débit": Y["y"]}, rules={"encoding"}),
    Good("utf8_name", TEXT.replace("y", "débit").encode(), {"débit": Y["y"]}),
    Good(
        "decimal_commas",
        b"date;y\n2020-01-01;1,5\n2020-01-02;2\n2020-01-03;1.234,25\n",
        {"y": [1.5, 2, 1234.25]},
        rules={"decimal_comma", "thousands"},
    ),
    Good("thousands", daily('"1,234"', '"12,345.5"', 7), {"y": [1234, 12345.5, 7]}, rules={"thousands"}),
    Good("thousands_apostrophe", daily("1'234", "1'235.5", 7), {"y": [1234, 1235.5, 7]}, rules={"thousands"}),
    Good("thousands_blank", daily("1 234", "1\u00a0235", 7), {"y": [1234, 1235, 7]}, rules={"thousands"}),
    Good("percent", daily("12%", "13 %", "14%"), {"y": [12, 13, 14]}, rules={"percent"}),
    Good("units", daily("12 kWh", "13.5 kWh", "14kWh"), {"y": [12, 13.5, 14]}, rules={"units"}),
    Good("currency", daily("$12", "-$3", '"$1,500"'), {"y": [12, -3, 1500]}, rules={"currency", "thousands"}),
    Good("parentheses", daily("(12)", 3, 4), {"y": [-12, 3, 4]}, rules={"accounting_negative"}),
    Good(
        "minus_behind", daily("12-", '"1,234.5 -"', 4), {"y": [-12, -1234.5, 4]}, rules={"thousands", "trailing_minus"}
    ),
    Good("typographic_minus", daily("\u221212", 3, 4), {"y": [-12, 3, 4]}, rules={"unicode_minus"}),
    Good("exponents", daily("1e3", "2E-1", "+4."), {"y": [1000, 0.2, 4]}),
    Good("booleans", daily("true", "FALSE", "true"), {"y": [1, 0, 1]}, rules={"booleans"}),
    Good(
        "missing_words", daily("NA", 2, "n/a", "#N/A", "-"), {"y": [None, 2, None, None, None]}, rules={"missing_words"}
    ),
    Good(
        "named_missing",
        daily(-999, 2, "off", 4),
        {"y": [None, 2, None, 4]},
        rules={"missing_words"},
        options=ReadOptions(missing=("-999", "off")),
    ),
    Good("blanks", daily("", 2, " ", 4), {"y": [None, 2, None, 4]}),
    Good("id_na", LONG.replace("a,", "NA,").encode(), {"NA": TWO["a"], "b": TWO["b"]}),
    Good(
        "id_null_and_zeros",
        LONG.replace("a,", "null,").replace("b,", "007,").encode(),
        {"null": TWO["a"], "007": TWO["b"]},
    ),
    Good("item_id", LONG.replace("unique_id,ds,y", "item_id,timestamp,target").encode(), TWO),
    Good(
        "named_id",
        LONG.replace("unique_id,ds,y", "shop,day of sale,sold").encode(),
        TWO,
        options=ReadOptions(time=("day of sale",)),
    ),
    Good(
        "two_ids",
        b"store,item,date,y\n"
        + b"".join(f"{s},{i},2020-01-0{d},{d}\n".encode() for s in "ab" for i in "xz" for d in (1, 2)),
        {f"{s}/{i}": [1, 2] for s in "ab" for i in "xz"},
    ),
    Good(
        "interleaved",
        b"city,date,t\nb,2020-01-01,1\na,2020-01-01,2\nb,2020-01-02,3\na,2020-01-02,4\n",
        {"b": [1, 3], "a": [2, 4]},
    ),
    Good("wide", b"date,u,v\n2020-01-01,1,2\n2020-01-02,3,4\n", {"u": [1, 3], "v": [2, 4]}),
    Good("value_first", b"temp,date\n1,2020-01-01\n2,2020-01-02\n", {"temp": [1, 2]}),
    Good("index_only", b"u,v\n1,2\n3,4\n5,7\n", {"u": [1, 3, 5], "v": [2, 4, 7]}, "int", 0),
    Good("one_column", b"y\n5\n\n7\n8\n\n", {"y": [5, None, 7, 8]}, "int", 0, {"blank_lines"}),
    Good("one_column_no_header", b"5\n6\n7.5\n8\n", {"column 1": [5, 6, 7.5, 8]}, "int", 0),
    Good("no_header", FIVE.partition(b"\n")[2], {"column 2": Y["y"]}),
    Good(
        "row_numbers",
        b",date,y\n" + b"".join(f"{i},2020-01-0{i + 1},{i * i}\n".encode() for i in range(4)),
        {"y": [0, 1, 4, 9]},
        rules={"column_names"},
    ),
    Good(
        "row_names",
        b"date,y\n" + b"".join(f"r{i},2020-01-0{i + 1},{i * i}\n".encode() for i in range(4)),
        {"y": [0, 1, 4, 9]},
        rules={"row_names"},
    ),
    Good("descending", b"date,y\n2020-01-03,3\n2020-01-02,2\n2020-01-01,1\n", {"y": [1, 2, 3]}, rules={"sorted"}),
    Good(
        "shuffled",
        b"date,y\n2020-01-02,2\n2020-01-04,4\n2020-01-01,1\n2020-01-03,3\n",
        {"y": [1, 2, 3, 4]},
        rules={"sorted"},
    ),
    Good("equal_duplicates", FIVE + b"2020-01-05,5\n", Y, rules={"duplicate_rows"}),
    Good(
        "averaged_duplicates",
        FIVE + b"2020-01-05,6\n",
        {"y": [1, 2, 3, 4, 5.5]},
        rules={"duplicates_mean"},
        options=ReadOptions(duplicates="mean"),
    ),
    Good(
        "last_duplicate",
        FIVE + b"2020-01-05,6\n",
        {"y": [1, 2, 3, 4, 6]},
        rules={"duplicates_last"},
        options=ReadOptions(duplicates="last"),
    ),
    Good("gap", FIVE + b"2020-01-08,8\n", {"y": [1, 2, 3, 4, 5, None, None, 8]}, rules={"gaps"}),
    Good("offsets_change", "\n".join(["Time,y", *RIVER, ""]).encode(), {"y": [0, 1, 2, 3, 4]}, "h", "2022-03-26 23:00"),
    Good(
        "repeated_hour",
        "\n".join(["time,y", *(f"2022-10-30 {t},{i}" for i, t in enumerate(AUTUMN)), ""]).encode(),
        {"y": [0, 1, 2, 3, 4, 5]},
        "h",
        "2022-10-29 22:00",
        {"repeated_hour"},
        ReadOptions(zone="Europe/Berlin"),
    ),
    Good(
        "days_across_clock_change",
        b"time,y\n" + b"".join(f"2022-03-{d}T00:00:00+0{1 if d < 28 else 2}:00,{d}\n".encode() for d in range(25, 31)),
        {"y": [25, 26, 27, 28, 29, 30]},
        "D",
        "2022-03-24 23:00",
    ),
    Good(
        "comments",
        b"# made by a logger\n# unit: m\n" + FIVE + b"# the end\n",
        Y,
        rules={"lines_before_table", "comment_lines"},
    ),
    Good("header_in_comment", b"#" + FIVE, Y),
    Good("title_lines", b"Sales report\nconfidential\n\n" + FIVE, Y, rules={"lines_before_table"}),
    Good("padded_title", b"Sales,\n,\n" + FIVE, Y, rules={"lines_before_table"}),
    Good("footer", FIVE + b"Total,15\nSource: us,\n", Y, rules={"footer_lines"}),
    Good("units_below_header", b"date,y\nUTC,m3/s\n" + FIVE.partition(b"\n")[2], Y, rules={"header_lines"}),
    Good("repeated_header", FIVE + b"date,y\n2020-01-06,6\n", {"y": [1, 2, 3, 4, 5, 6]}, rules={"repeated_header"}),
    Good(
        "trailing_delimiters",
        FIVE.replace(b"\n2", b",,\n2").replace(b"date,y,,", b"date,y"),
        Y,
        rules={"trailing_delimiters"},
    ),
    Good("blank_lines", FIVE.replace(b"\n", b"\n\n"), Y, rules={"blank_lines"}),
    Good(
        "short_rows",
        b"date,u,v\n2020-01-01,1,2\n2020-01-02,3\n2020-01-03,4,5\n",
        {"u": [1, 3, 4], "v": [2, None, 5]},
        rules={"short_rows"},
    ),
    Good(
        "cut_last_line",
        b"date,u,v\n2020-01-01,1,2\n2020-01-02,3,4\n2020-01-03,5",
        {"u": [1, 3], "v": [2, 4]},
        rules={"cut_last_line"},
    ),
    Good("quoted_newline", b'date,"flow\n(m3/s)"\n' + FIVE.partition(b"\n")[2], {"flow (m3/s)": Y["y"]}),
    Good(
        "duplicate_names",
        b"date,y,y\n2020-01-01,1,2\n2020-01-02,3,4\n",
        {"y": [1, 3], "y (2)": [2, 4]},
        rules={"column_names"},
    ),
    Good("text_column", b"date,y,sky\n2020-01-01,1,sun\n2020-01-02,2,rain\n2020-01-03,3,sun\n", {"y": [1, 2, 3]}),
    Good("empty_column", b"date,y,\n2020-01-01,1,\n2020-01-02,2,\n", {"y": [1, 2]}, rules={"column_names"}),
    Good("constant", daily(7, 7, 7), {"y": [7, 7, 7]}),
    Good(
        "twenty_four_o_clock",
        b"time,y\n2020-01-01 23:00,1\n2020-01-01 24:00,2\n2020-01-02 01:00,3\n",
        {"y": [1, 2, 3]},
        "h",
        "2020-01-01 23:00",
        {"hour_24"},
    ),
    Good(
        "late_logger",
        b"time,y\n" + b"".join(f"2020-01-01 00:{5 * i:02d}:0{i % 3},{i}\n".encode() for i in range(8)),
        {"y": [0, 1, 2, 3, 4, 5, 6, 7]},
        "5min",
        "2020-01-01",
        {"off_grid"},
    ),
    Good(
        "resampled",
        b"time,y\n2020-01-01 00:10,1\n2020-01-01 00:50,3\n2020-01-01 01:20,5\n",
        {"y": [2, 5]},
        "h",
        "2020-01-01",
        {"resampled"},
        ReadOptions(frequency="h"),
    ),
    Good(
        "date_and_clock",
        b"Date;Time;CO\n10/03/2004;18.00.00;2,6\n10/03/2004;19.00.00;2\n10/03/2004;20.00.00;2,2\n31/03/2004;21.00.00;\n",
        {"CO": [2.6, 2, 2.2, *[None] * 505]},
        "h",
        "2004-03-10 18:00",
        {"decimal_comma", "gaps"},
    ),
    *(
        Good(
            f"year_{word}",
            f"Year,{word},y\n2019,{last},1\n2020,1,2\n2020,2,3\n".encode(),
            {"y": [1, 2, 3]},
            step,
            first,
        )
        for word, last, step, first in (("Quarter", 4, "QS-JAN", "2019-10-01"), ("week", 52, "W-MON", "2019-12-23"))
    ),
    Good("year_month_columns", b"year,month,y\n2019,11,1\n2019,12,2\n2020,1,3\n", {"y": [1, 2, 3]}, "MS", "2019-11-01"),
    Good(
        "ambiguous_dates_settled",
        b"date,y\n01/02/2020,1\n02/02/2020,2\n03/02/2020,3\n",
        {"y": [1, 2, 3]},
        "D",
        "2020-02-01",
        options=ReadOptions(dayfirst=True),
    ),
    Good(
        "mixed_formats",
        b"date,y\n" + b"".join(f"2020-01-{d:02d},{d}\n".encode() for d in range(1, 9)) + b"9 Jan 2020,9\n",
        {"y": [1, 2, 3, 4, 5, 6, 7, 8, 9]},
        rules={"mixed_time_formats"},
    ),
    Good(
        "parquet",
        parquet(pd.DataFrame({"ds": pd.date_range("2020-01-01", periods=3), "y": [1.0, np.nan, 3.0]})),
        {"y": [1, None, 3]},
    ),
    Good(
        "parquet_zone",
        parquet(pd.DataFrame({"ds": pd.date_range("2020-01-01", periods=3, freq="h", tz="UTC"), "y": [1, 2, 3]})),
        {"y": [1, 2, 3]},
        "h",
    ),
]
GOOD += [
    Good(
        "blanks_between_thousands",
        "date;y\n2020-01-01;1\u202f000,5\n2020-01-02;1\u00a0002\n2020-01-03;3,25\n".encode(),
        {"y": [1000.5, 1002, 3.25]},
        rules={"decimal_comma", "thousands"},
    ),
]
BAD = [
    Bad("empty", b"", 1, "empty", "complete"),
    Bad("only_blanks", b"\n \n\n", 1, "empty", "complete"),
    Bad("header_only", b"date,y\n", 1, "no data", "whole"),
    Bad("one_row", b"date,y\n2020-01-01,1\n", 2, "one row", "two rows"),
    Bad("overflow", daily(1, "1e400", 3), 3, "64-bit", "missing"),
    Bad("infinity", daily(1, 2, "inf"), 4, "64-bit", "missing"),
    Bad("word_among_numbers", daily(1, 2, "broken", 4), 4, "not a number", "missing='broken'"),
    Bad("mixed_units", daily("1 kg", "2 kg", "300 g", "4 kg"), 4, "mixes units", "one unit"),
    Bad("extra_field", daily(1, "2,5", 3), 3, "3 fields where the header names 2", "quotes"),
    Bad("header_of_one_name", b"y\n1,5\n2,3\n3,1\n", 1, "names 1 columns", "every column"),
    Bad(
        "ambiguous_dates",
        b"date,y\n01/02/2020,1\n02/02/2020,2\n03/02/2020,3\n",
        2,
        "day/month or month/day",
        "--dayfirst",
    ),
    Bad(
        "both_orders",
        b"date,y\n13/01/2020,1\n14/01/2020,2\n15/01/2020,3\n01/16/2020,4\n",
        5,
        "mixes day/month",
        "2020-01-31",
    ),
    Bad("no_such_day", b"date,y\n2020-02-28,1\n2020-02-29,2\n2020-02-30,3\n2020-03-01,4\n", 4, "no time", "correct"),
    Bad("empty_time", b"date,y\n2020-01-01,1\n,2\n2020-01-03,3\n", 3, "empty time", "correct"),
    Bad("word_for_time", b"date,y\n2020-01-01,1\nsoon,2\n2020-01-03,3\n", 3, "no time", "delete"),
    Bad("contradicting_rows", FIVE + b"2020-01-05,6\n", 7, "contradict", "duplicates=mean"),
    Bad("contradicting_rows_long", LONG.encode() + b"a,2020-01-03,4\n", 8, "series 'a'", "duplicates=mean"),
    Bad(
        "clock_change_without_zone",
        "\n".join(["time,y", *(f"2022-10-30 {t},{i}" for i, t in enumerate(AUTUMN)), ""]).encode(),
        5,
        "contradict",
        "--timezone",
    ),
    Bad(
        "skipped_hour",
        b"time,y\n2022-03-27 01:00,1\n2022-03-27 02:00,2\n2022-03-27 03:00,3\n",
        3,
        "no such time",
        "another zone",
        ReadOptions(zone="Europe/Berlin"),
    ),
    Bad("unknown_zone", FIVE, None, "no such time zone", "Europe/Berlin", ReadOptions(zone="Mars/Olympus")),
    Bad(
        "some_offsets",
        b"time,y\n2020-01-01T00:00:00Z,1\n2020-01-01T01:00:00,2\n2020-01-01T02:00:00Z,3\n",
        3,
        "an offset, others none",
        "--timezone",
    ),
    Bad(
        "irregular",
        b"date,y\n2020-01-01,1\n2020-01-03,2\n2020-01-11,3\n2020-01-16,4\n2020-02-28,5\n",
        2,
        "no regular step",
        "--freq",
    ),
    Bad(
        "one_far_date",
        b"time,y\n2020-01-01 00:00,1\n2020-01-01 00:01,2\n2020-01-01 00:02,3\n2023-01-01 00:00,4\n",
        2,
        "grid",
        "first and last",
    ),
    Bad("blank_id", b"unique_id,ds,y\na,2020-01-01,1\n,2020-01-02,2\n", 3, "no name of a series", "write"),
    Bad("no_numbers", b"date,sky\n2020-01-01,sun\n2020-01-02,rain\n", 2, "no column holds numbers", "delimiter"),
    Bad(
        "mixed_decimals",
        b"date;y\n2020-01-01;1,5\n2020-01-02;2.5\n",
        2,
        "decimal commas and decimal points",
        "one mark",
    ),
    Bad(
        "comma_or_thousands",
        b"date;y\n2020-01-01;1,234\n2020-01-02;2,345\n",
        2,
        "decimal comma or thousands",
        "decimal=",
    ),
    Bad("open_quote", b'date,y\n2020-01-01,"1\n' + FIVE.partition(b"\n")[2] * 10, 2, "quote", "close"),
    Bad("nul", b"date,y\n2020-01-01,1\n2020-01-02,\x00\n", 3, "NUL", "damaged"),
    Bad(
        "broken_utf8",
        "date,débit é è\n2020-01-01,1\n".encode() + b"2020-01-02,\xff\n",
        3,
        "broken characters",
        "repair",
    ),
    Bad(
        "wrong_encoding",
        "date,é\n2020-01-01,1\n".encode(),
        1,
        "not text in ascii",
        "another",
        ReadOptions(encoding="ascii"),
    ),
    Bad("html", b"<!DOCTYPE html>\n<html><body>404</body></html>\n", 1, "web page", "raw link"),
    Bad("json", b'[{"date": "2020-01-01", "y": 1}]', 1, "JSON", "read_json"),
    Bad("xlsx", zipped("xl/workbook.xml"), 1, "Excel", "CSV"),
    Bad("zip", zipped("data.csv"), 1, "zip archive", "unzip"),
    Bad("bzip2", bz2.compress(FIVE), 1, "bzip2", "bunzip2"),
    Bad("gzip_cut", gzip.compress(FIVE * 50, mtime=0)[:-9], 1, "gzip data is broken", "again"),
    Bad("pickle", b"\x80\x04\x95abc", 1, "pickle", "Parquet"),
    Bad("old_excel", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 1, "Excel", "CSV"),
    Bad("pdf", b"%PDF-1.7", 1, "PDF", "CSV"),
    Bad("binary", bytes(range(256)) * 20, 1, "binary data", "export it as CSV"),
    Bad("parquet_cut", b"PAR1" + b"\0" * 30, 1, "broken Parquet", "again"),
    Bad("no_such_column", FIVE, 1, "no column of this name", "spelling", ReadOptions(target=("sales",))),
    Bad("times_across", b"shop,2019,2020,2021\nA,1,2,3\nB,2,3,4\n", 1, "across the header", "melt(['shop']"),
    Bad(
        "months_of_no_language", b"Monat;y\nMai 2020;1\nJuni 20;2\nJuli 20;3\n", 2, "named like times", "ignore='Monat'"
    ),
    Bad(
        "months_across", b"Year,Jan,Feb,Mar,Apr,May,Jun,Jul,Aug,Sep,Oct,Nov,Dec\n", 1, "months run across", "each Year"
    ),
    Bad("times_unread", b"date,y\nP1-20,1\nP2-20,2\nP3-20,3\n", 2, "named like times", "ignore='date'"),
    Bad("year_out_of_range", b"date,y\n0001-01-01,1\n2020-01-02,2\n2020-01-03,3\n", 2, "no time", "correct"),
]


def series_of(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    return {
        str(name): [None if np.isnan(value) else float(value) for value in group["y"]]
        for name, group in frame.groupby("unique_id", sort=False)
    }


def test_there_are_enough_files() -> None:
    assert len({case.name for case in GOOD + BAD}) == len(GOOD) + len(BAD) >= 60


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c.name)
def test_read_with_exactly_the_expected_values(case: Good, tmp_path: Path) -> None:
    (path := tmp_path / "table.csv").write_bytes(case.content)
    read = read_series(path, case.options)
    assert series_of(read.frame) == case.series
    assert read.frequency.alias == case.frequency
    first = read.frame["ds"].iloc[0]
    assert first == (case.first if isinstance(case.first, int) else pd.Timestamp(case.first))
    assert {finding.rule for finding in read.report.findings} == case.rules
    json.dumps(read.report.to_dict())


@pytest.mark.parametrize("case", GOOD, ids=lambda c: c.name)
def test_the_cleaned_table_needs_no_repair_and_the_rules_give_it_again(case: Good, tmp_path: Path) -> None:
    path, clean, rules = tmp_path / "table.csv", tmp_path / "clean.csv", tmp_path / "rules.yaml"
    path.write_bytes(case.content)
    read = read_series(path, case.options)
    write_clean(read, clean)
    read.options.save(rules)
    again = read_series(clean)
    assert again.report.findings == []
    pd.testing.assert_frame_equal(again.frame, read.frame)
    write_clean(read_series(path, ReadOptions.load(rules)), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == clean.read_bytes()


@pytest.mark.parametrize("case", BAD, ids=lambda c: c.name)
def test_refused_with_file_line_and_mend(case: Bad, tmp_path: Path) -> None:
    (path := tmp_path / "bad.csv").write_bytes(case.content)
    with pytest.raises(UserError) as caught:
        read_series(path, case.options)
    error = caught.value
    assert case.line is None or (error.path, error.line) == (path, case.line)
    assert case.problem
    assert case.fix
    assert case.problem in error.problem
    assert case.fix in (error.fix or "")
