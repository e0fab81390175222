"""The words that tables use: for missing values, for times, for series, for what is to be forecast."""

from __future__ import annotations

import re

MISSING = frozenset(
    (
        *("na", "n/a", "nan", "null", "none", "nil", "n.a.", "nat", "missing", "<na>", "\\n"),
        *("-", "--", "---", ".", "..", "...", "?", "*", "x"),
        *("#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#num!"),
    )
)
"""What stands for "no value", in lower case; blanks do too."""

STRONG_TIMES = (
    *("ds", "timestamp", "datetime", "date time", "date", "time", "utc", "time stamp", "datum", "zeitstempel", "zeit"),
    *("fecha", "data ora", "dato", "tid", "tijd", "datetime utc", "utc time", "ts", "epoch"),
)
WEAK_TIMES = (
    "yearmonth",
    "year month",
    "yyyymm",
    "month",
    "quarter",
    "week",
    "period",
    "day",
    "year",
    "yr",
    *("jahr", "monat", "woche", "tag", "mois", "semaine", "jour", "mes", "semana"),
    "t",
    "step",
)
CALENDAR = frozenset(
    (
        *("year", "month", "day", "hour", "minute", "second", "weekday", "dow", "doy", "week", "quarter", "season"),
        *("date", "time", "day of week", "day of year", "week of year", "is weekend"),
    )
)
STRONG_IDS = ("unique id", "item id", "series id", "ts id")
IDS = (
    *("id", "series", "name", "key", "store", "shop", "item", "sku", "product", "station", "sensor", "site", "region"),
    *("country", "state", "city", "county", "customer", "device", "meter", "symbol", "ticker", "code", "location"),
    *(
        "category",
        "group",
        "origin",
        "store id",
        "product id",
        "station id",
        "sensor id",
        "meter id",
        "device id",
        "family",
        "dept",
    ),
)
TARGETS = ("y", "target", "value", "values")

_SPLIT = re.compile(r"[^a-z0-9]+")


def plain(name: str) -> str:
    """Gives a column's name in lower case, its words parted by blanks (`dateTime`, `Date_Time` -> `date time`)."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(word for word in _SPLIT.split(spaced.lower()) if word)


def is_missing(cell: str) -> bool:
    """Tells whether a cell is blank or a word for "no value"."""
    return not cell.strip() or cell.strip().lower() in MISSING


def is_time_name(name: str) -> bool:
    """Tells whether a column of this name usually holds times."""
    words = plain(name)
    return (
        words in STRONG_TIMES
        or words in WEAK_TIMES
        or bool({"date", "time", "timestamp", "datetime"} & set(words.split()))
    )


def time_rank(name: str) -> int | None:
    """Tells how likely a name is to be that of the time column: smaller is likelier, None is no sign of it."""
    words = plain(name)
    if words in STRONG_TIMES:
        return STRONG_TIMES.index(words)
    if {"date", "time", "timestamp", "datetime"} & set(words.split()):
        return len(STRONG_TIMES)
    return len(STRONG_TIMES) + 1 + WEAK_TIMES.index(words) if words in WEAK_TIMES else None
