"""Numbers as people write them: decimal commas, thousands, units, words for "no value"; each change under its rule."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.options import ReadOptions
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.words import MISSING

MOSTLY = 0.98
"""Share of a column's cells that must be numbers for the column to be one of numbers."""

_PLAIN = {mark: rf"^[+-]?(\d+(\{mark}\d*)?|\{mark}\d+)([eE][+-]?\d+)?$" for mark in ".,"}
_BLANKS = "'\u2019 \u00a0\u202f\u2009_"
_GROUPED = {
    ",": re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?"),
    ".": re.compile(r"\d{1,3}(\.\d{3})+(,\d*)?"),
    " ": re.compile(rf"\d{{1,3}}([{_BLANKS}]\d{{3}})+([.,]\d*)?"),
}
_AFFIX = re.compile(
    r"(?P<head>[^\d\s.,()+\-\u2212]{0,4})\s*"
    r"(?P<number>[\d.,'\u2019 \u00a0\u202f\u2009_]*[\d](?:[.,](?!\d))?(?:[eE][+-]?\d+)?)\s*"
    r"(?P<tail>[^\d\s()][^\d()]{0,9}|[^\d\s()]{0,9}\^?[23]?)"
)
_RULES = {
    "decimal_comma": "decimal commas were read as decimal points",
    "thousands": "marks between thousands were left out",
    "units": "the unit was taken off the number",
    "percent": "percent signs were taken off (12 % is read as 12)",
    "currency": "the currency was taken off the number",
    "trailing_minus": "a minus behind the number was read as one before it",
    "unicode_minus": "typographic minus signs were read as minus",
    "accounting_negative": "numbers in parentheses were read as negative",
    "booleans": "true and false were read as 1 and 0",
    "missing_words": "words for 'no value' were read as missing",
}


@dataclass(frozen=True)
class Style:
    """The marks in a file's numbers."""

    decimal: str = "."
    thousands: str | None = None
    missing: frozenset[str] = MISSING


@dataclass
class Reading:
    """A column read as numbers.

    Attributes:
        values: (n,) float64, NaN where missing or not a number.
        bad: rows that are neither.
        rules: rule -> rows it changed.
    """

    values: np.ndarray
    bad: np.ndarray
    filled: int
    rules: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The part of the cells that are not missing which are numbers; 0 where there are none."""
        return (self.filled - len(self.bad)) / self.filled if self.filled else 0.0


def find_style(table: Table, names: Iterable[str], delimiter: str, options: ReadOptions) -> Style:
    """Gives the decimal mark of a whole file, from what its cells allow.

    Raises:
        UserError: cells contradict each other, or all of them can be read in two ways.
    """
    missing = MISSING | {word.strip().lower() for word in options.missing}
    if options.decimal:
        return Style(options.decimal, options.thousands, missing)
    comma, point, either = {}, {}, {}
    for name in names:
        cells = table.columns[name]
        if not pa.types.is_string(cells.type):
            continue
        for cell, row in _odd_cells(table.text(name)):
            bare = re.sub(rf"(?<=\d)[{_BLANKS}](?=\d{{3}})", "", cell.strip("+-\u2212$€£%() "))
            if re.fullmatch(
                r"\d+,(\d{1,2}|\d{4,})|0,\d+|\d{4,},\d+|\d{1,3}(\.\d{3})+,\d+|,\d+|\d+,\d+[eE][+-]?\d+", bare
            ):
                comma.setdefault(name, (row, cell))
            elif re.fullmatch(r"\d{1,3}(,\d{3})+\.\d*|\d{1,3}(,\d{3}){2,}", bare):
                point.setdefault(name, (row, cell))
            elif re.fullmatch(r"\d{1,3},\d{3}", bare):
                either.setdefault(name, (row, cell))
        if (
            name in comma
            and name not in point
            and (row := _first(table.text(name), r"^[+-]?(\d+\.(\d{1,2}|\d{4,})|0\.\d+)$")) is not None
        ):
            point[name] = (row, table.text(name)[row].as_py())
    if comma and any(name in point for name in comma):
        name = next(name for name in comma if name in point)
        row, cell = comma[name]
        raise _contradiction(table, name, cell, point[name][1], row)
    if comma:
        return Style(",", options.thousands or ".", missing)
    if either and not point and delimiter != ",":
        name, (row, cell) = next(iter(either.items()))
        raise UserError(
            f"{cell!r} in column {name!r} can be a decimal comma or thousands",
            path=table.path,
            line=int(table.lines[row]),
            found=cell,
            fix="say which: --read decimal=, or --read decimal=.",
        )
    return Style(".", options.thousands or ",", missing)


def _contradiction(table: Table, name: str, comma: str, point: str, row: int) -> UserError:
    return UserError(
        f"column {name!r} holds decimal commas and decimal points",
        path=table.path,
        line=int(table.lines[row]),
        found=f"{comma} beside {point}",
        fix="use one mark in the whole file",
    )


def _first(cells: pa.Array, expression: str) -> int | None:
    found = pc.index(pc.match_substring_regex(cells, expression), pa.scalar(True)).as_py()
    return None if found < 0 else found


def _odd_cells(cells: pa.Array, limit: int = 2000) -> list[tuple[str, int]]:
    """The first distinct cells that hold a comma between digits, with their rows."""
    rows = np.flatnonzero(pc.match_substring_regex(cells, r"\d,\d|^[+-]?,\d").to_numpy(zero_copy_only=False))[
        : 50 * limit
    ]
    texts = cells.take(pa.array(rows)).to_pylist()
    firsts: dict[str, int] = {}
    for text, row in zip(texts, rows.tolist(), strict=True):
        firsts.setdefault(text, row)
        if len(firsts) == limit:
            break
    return list(firsts.items())


def read_numbers(cells: pa.Array, style: Style) -> Reading:
    """Reads a column: plain numbers all at once, the rest by distinct value.

    Args:
        cells: text without blanks around it, or numbers or booleans as Parquet holds them.
    """
    if not pa.types.is_string(cells.type):
        return _typed(cells)
    plain = pc.match_substring_regex(cells, _PLAIN[style.decimal])
    if style.missing != MISSING:
        plain = pc.and_(plain, pc.invert(pc.is_in(pc.utf8_lower(cells), pa.array(sorted(style.missing)))))
    mask = plain.to_numpy(zero_copy_only=False)
    texts = pc.if_else(plain, cells, pa.scalar(None, pa.string()))
    if style.decimal == ",":
        texts = pc.replace_substring(texts, ",", ".")
    values = pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False).copy()
    reading = Reading(values, np.flatnonzero(mask & ~np.isfinite(values)), int(mask.sum()))
    if style.decimal == ",":
        commas = pc.match_substring(cells, ",").to_numpy(zero_copy_only=False) & mask
        if commas.any():
            reading.rules["decimal_comma"] = np.flatnonzero(commas)
    _read_odd(cells, np.flatnonzero(~mask), style, reading)
    return reading


def _typed(cells: pa.Array) -> Reading:
    if not (
        pa.types.is_floating(cells.type)
        or pa.types.is_integer(cells.type)
        or pa.types.is_boolean(cells.type)
        or pa.types.is_decimal(cells.type)
    ):
        everything = np.arange(len(cells))
        return Reading(np.full(len(cells), np.nan), everything, len(cells))
    values = pc.cast(cells, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    infinite = np.flatnonzero(np.isinf(values))
    return Reading(values, infinite, int(np.isfinite(values).sum()) + len(infinite))


def _read_odd(cells: pa.Array, rows: np.ndarray, style: Style, reading: Reading) -> None:
    if not len(rows):
        return
    encoded = pc.dictionary_encode(cells.take(pa.array(rows)))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    read = [_one(text, style) for text in encoded.dictionary.to_pylist()]
    reading.values[rows] = np.array([value for value, _ in read])[codes]
    kinds = [rules for _, rules in read]
    bad = np.array(["bad" in rules for rules in kinds])[codes]
    blank = np.array(["blank" in rules or "missing_words" in rules for rules in kinds])[codes]
    reading.bad = np.sort(np.concatenate([reading.bad, rows[bad]]))
    reading.filled += int((~blank).sum())
    for rule in {rule for rules in kinds for rule in rules} - {"bad", "blank"}:
        reading.rules[rule] = np.sort(
            np.concatenate(
                [reading.rules.get(rule, rows[:0]), rows[np.array([rule in rules for rules in kinds])[codes]]]
            )
        )


def _one(text: str, style: Style) -> tuple[float, tuple[str, ...]]:
    """The value of one odd cell and the rules that gave it."""
    if not text:
        return np.nan, ("blank",)
    if text.lower() in style.missing:
        return np.nan, ("missing_words",)
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true"), ("booleans",)
    rules: list[str] = []
    sign, body = 1.0, text
    if re.fullmatch(r"\(.*\d.*\)", body):
        sign, body = -1.0, body[1:-1].strip()
        rules.append("accounting_negative")
    signed = re.match(r"[+\-\u2212\u2013]\s*", body) or re.match(r"(?<=[$€£])[-\u2212]", body)
    if signed:
        sign *= -1.0 if signed[0].strip() != "+" else 1.0
        rules += ["unicode_minus"] if signed[0].strip() in "\u2212\u2013" else []
        body = body[signed.end() :]
    elif re.fullmatch(r".*\d\s*[-\u2212]", body):
        sign, body = -sign, body[:-1].rstrip()
        rules.append("trailing_minus")
    found = _AFFIX.fullmatch(body)
    if not found:
        return np.nan, ("bad",)
    rules += _affix_rules(found["head"], found["tail"].strip())
    value, more = _digits(found["number"].strip(), style)
    finite = value is not None and np.isfinite(value)
    return (sign * value, (*rules, *more)) if finite and value is not None else (np.nan, ("bad",))


def _affix_rules(head: str, tail: str) -> list[str]:
    rules = ["currency"] if head else []
    if tail == "%":
        rules.append("percent")
    elif tail:
        rules.append("currency" if tail in "$€£¥" else "units")
    return rules


def _digits(text: str, style: Style) -> tuple[float | None, tuple[str, ...]]:
    rules: tuple[str, ...] = ()
    thousands = style.thousands
    for mark in (thousands if thousands and thousands in ",." else "", " "):
        if mark and _GROUPED[mark].fullmatch(text):
            text = re.sub(rf"[{_BLANKS}]" if mark == " " else re.escape(mark), "", text)
            rules = (*rules, "thousands")
    if style.decimal == "," and "," in text:
        text, rules = text.replace(",", "."), (*rules, "decimal_comma")
    try:
        return (float(text), rules) if re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else (None, ())
    except ValueError:
        return None, ()


def accept_numbers(table: Table, name: str, reading: Reading, report: IngestReport) -> np.ndarray:
    """Gives the values of a column that must be numbers, with its repairs reported.

    Raises:
        UserError: a cell is no number, lies beyond float64, or units differ.
    """
    cells = table.columns[name]
    if len(reading.bad):
        raise _bad_cell(table, name, reading)
    units = reading.rules.get("units")
    if units is not None:
        _refuse_mixed_units(table, name, units, reading)
    for rule, rows in sorted(reading.rules.items()):
        examples = [(str(cells[int(row)].as_py()), _shown(float(reading.values[row]))) for row in rows[:5]]
        report.repair(
            rule,
            f"{_RULES[rule]}",
            count=len(rows),
            lines=table.lines[rows[:5]].tolist(),
            examples=examples,
            column=name,
        )
    return reading.values


def _shown(value: float) -> str:
    return "missing" if np.isnan(value) else f"{value:.12g}"


def _bad_cell(table: Table, name: str, reading: Reading) -> UserError:
    row = int(reading.bad[0])
    cell = str(table.columns[name][row].as_py())
    more = f" ({len(reading.bad):,} cells like it)" if len(reading.bad) > 1 else ""
    huge = bool(re.fullmatch(r"[+-]?(\d+\.?\d*e\+?\d+|\d{300,}|inf(inity)?)", cell.strip(), re.IGNORECASE))
    problem = "a number that no computer's 64-bit float can hold" if huge else "not a number"
    return UserError(
        f"{problem}, in column {name!r}{more}",
        path=table.path,
        line=int(table.lines[row]),
        found=cell,
        accepted="numbers, blanks, and words like NA for a missing value",
        fix=f"correct it, say that it means 'no value' (--read missing={cell.strip()!r}), "
        f"or leave the column out (--read ignore={name!r})",
    )


def _refuse_mixed_units(table: Table, name: str, rows: np.ndarray, reading: Reading) -> None:
    texts = [str(text) for text in table.columns[name].take(pa.array(rows[:100_000])).to_pylist()]
    matches = [_AFFIX.fullmatch(text.strip("+-\u2212( )")) for text in texts]
    units = [match["tail"].strip() if match else "" for match in matches]
    found = Counter(units)
    if len(found) > 1 or len(rows) < reading.filled * 0.5:
        row = units.index(min(found, key=lambda unit: found[unit]))
        raise UserError(
            f"column {name!r} mixes units",
            path=table.path,
            line=int(table.lines[rows[row]]),
            found=texts[row],
            accepted="one unit in every cell of a column, or none",
            fix="write all its values in one unit",
        )
