"""Which format a column's times are written in: candidates from a few cells, each tried on the whole column."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mamba_data_prep.series.arrow import pc
from mamba_data_prep.series.times.format import ParsedTimes, TimeFormat

_S = r"(?P<s>[-/. ])"
_WORD = r"[A-Za-z]{3,9}"
_DATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (rf"\d{{4}}{_S}\d{{1,2}}(?P=s)\d{{1,2}}", ("%Y{s}%m{s}%d", "%Y{s}%-m{s}%-d")),
    (
        rf"\d{{1,2}}{_S}\d{{1,2}}(?P=s)\d{{4}}",
        ("%d{s}%m{s}%Y", "%m{s}%d{s}%Y", "%-d{s}%-m{s}%Y", "%-m{s}%-d{s}%Y"),
    ),
    (
        rf"\d{{1,2}}{_S}\d{{1,2}}(?P=s)\d{{2}}",
        ("%d{s}%m{s}%y", "%m{s}%d{s}%y", "%-d{s}%-m{s}%y", "%-m{s}%-d{s}%y", "%y{s}%m{s}%d"),
    ),
    (r"\d{8}", ("%Y%m%d",)),
    (r"\d{4}-\d{3}", ("%Y-%j",)),
    (rf"\d{{1,2}}(?P<s>[- .]){_WORD}(?P=s)\d{{4}}", ("%d{s}%b{s}%Y", "%-d{s}%b{s}%Y")),
    (rf"\d{{1,2}}(?P<s>[- ]){_WORD}(?P=s)\d{{2}}", ("%d{s}%b{s}%y", "%-d{s}%b{s}%y")),
    (rf"{_WORD} \d{{1,2}}, \d{{4}}", ("%b %d, %Y", "%b %-d, %Y")),
    (rf"{_WORD} \d{{1,2}} \d{{4}}", ("%b %d %Y", "%b %-d %Y")),
    (rf"\d{{4}}(?P<s>[- /]){_WORD}(?P=s)\d{{1,2}}", ("%Y{s}%b{s}%d", "%Y{s}%b{s}%-d")),
)
_PERIODS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\d{4}(?P<s>[-/. ])\d{1,2}", ("%Y{s}%m", "%Y{s}%-m")),
    (r"\d{1,2}(?P<s>[-/. ])\d{4}", ("%m{s}%Y", "%-m{s}%Y")),
    (r"\d{4}(?P<s>-| ?)M\d{1,2}", ("%Y{s}M%m", "%Y{s}M%-m")),
    (rf"{_WORD}(?P<s>[-/, ]+)\d{{4}}", ("%b{s}%Y",)),
    (rf"{_WORD}(?P<s>[-/ ]|'|-')\d{{2}}", ("%b{s}%y",)),
    (rf"\d{{4}}(?P<s>[-/ ]){_WORD}", ("%Y{s}%b",)),
    (rf"\d{{2}}(?P<s>[-/ ]){_WORD}", ("%y{s}%b",)),
    (r"\d{4}(?P<s>[-/: ]?)Q\d", ("%Y{s}Q%q",)),
    (r"Q\d(?P<s>[-/: ]?)\d{4}", ("Q%q{s}%Y",)),
    (r"Q\d(?P<s>[-/: '])\d{2}", ("Q%q{s}%y",)),
    (r"FY(?P<s> ?)\d{4}[- ]?Q\d", ("FY{s}%YQ%q", "FY{s}%Y Q%q", "FY{s}%Y-Q%q")),
    (r"FY(?P<s> ?)\d{2}[- ]?Q\d", ("FY{s}%yQ%q", "FY{s}%y Q%q", "FY{s}%y-Q%q")),
    (r"Q\d[- ]?FY(?P<s> ?)\d{4}", ("Q%qFY{s}%Y", "Q%q FY{s}%Y", "Q%q-FY{s}%Y")),
    (r"Q\d[- ]?FY(?P<s> ?)\d{2}", ("Q%qFY{s}%y", "Q%q FY{s}%y", "Q%q-FY{s}%y")),
    (r"\dQ(?P<s>[-/: ']?)\d{4}", ("%qQ{s}%Y",)),
    (r"\dQ(?P<s>[-/: ']?)\d{2}", ("%qQ{s}%y",)),
    (r"\d{4}(?P<s>[-/ ]?)W\d{1,2}", ("%G{s}W%V", "%G{s}W%-V")),
    (r"\d{4}(?P<s>-?)W\d{2}(?P=s)\d", ("%G{s}W%V{s}%u",)),
    (r"\d{4}(?P<s>M)\d{1,2}", ("%YM%m",)),
)
_CLOCK = re.compile(
    r"(?P<lead>[T ]+|, )(?P<h>\d{1,2})(?P<c>[:.h])(?P<m>\d{2})(?P<sec>[:.]\d{2})?"
    r"(?P<frac>[.,]\d{1,9})?(?P<p> ?[AaPp]\.?[Mm]\.?)?"
    r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?"
)
_DIGITS = (("%Y%m%d%H%M%S", 14), ("%Y%m%d%H%M", 12), ("%Y%m%d%H", 10), ("%Y%m%d", 8), ("%Y%m", 6), ("%Y", 4))
_COUNTED = ("%s", "%L", "%K", "%N")
_EPOCH_RANGES = {"%s": (1e8, 4.2e9), "%L": (1e11, 4.2e12), "%K": (1e14, 4.2e15), "%N": (1e17, 4.2e18)}


@dataclass(frozen=True)
class Detected:
    """What reading a column as times gave.

    Attributes:
        format: the format of most cells.
        times: the cells read in it.
        share: the part of the cells that are not blank which are times.
        other_order: the same format with day and month exchanged, where it reads as many cells and differs.
    """

    format: TimeFormat
    times: ParsedTimes
    share: float
    other_order: TimeFormat | None = None


def detect_times(cells: pa.Array, *, dayfirst: bool | None = None, integers: bool = False) -> Detected | None:
    """Finds the format that reads the most cells of a column.

    Args:
        cells: text without blanks around it.
        dayfirst: settles 1/2/2020; None leaves it open, and `other_order` is set where the cells do not settle it.
        integers: whether plain digits may be times (dates like 20200131, seconds since 1970, numbers of rows).
    """
    filled = pc.sum(pc.not_equal(cells, "")).as_py() or 0
    tried: list[tuple[TimeFormat, ParsedTimes, int]] = []
    waiting = _promising(_candidates(cells, dayfirst, integers), cells)
    while waiting:
        format = waiting.pop(0)
        times = format.parse(cells)
        tried.append((format, times, int(times.ok.sum())))
        if tried[-1][2] == filled:  # nothing can read more, so only the other order of day and month matters
            waiting = [other for other in waiting if other.pattern == _swapped(format)]
    if not any(count for _, _, count in tried):
        return None
    best = max(count for _, _, count in tried)
    format, times, count = next(entry for entry in tried if entry[2] == best)
    rivals = [
        rival
        for rival, values, c in tried
        if c == best and _swapped(rival) == format.pattern and np.any(values.values != times.values)
    ]
    other_order = rivals[0] if rivals and "." not in format.pattern[:6] else None
    return Detected(_as_written(format, cells), times, count / max(filled, 1), other_order)


def _as_written(format: TimeFormat, cells: pa.Array) -> TimeFormat:
    """The format with names of months and days in full, or in capitals, where the cells have them so."""

    def have(expression: str) -> bool:
        return bool(pc.any(pc.match_substring_regex(cells, expression)).as_py())

    pattern = format.pattern
    if "%b" in pattern and have(r"(?i)(uary|march|april|june|july|august|ember|october)"):
        pattern = pattern.replace("%b", "%B")
    if "%a" in pattern and have(r"(?i)(mon|tues|wednes|thurs|fri|satur|sun)day"):
        pattern = pattern.replace("%a", "%A")
    if re.search("%[abAB]", pattern) and not have("[a-z]"):
        pattern = re.sub("%([abAB])", r"%^\1", pattern)
    return TimeFormat(pattern)


def _promising(formats: list[TimeFormat], cells: pa.Array) -> list[TimeFormat]:
    """The formats that read about as much of a sample as the best of them."""
    step = max(1, len(cells) // 4000)
    sample = pa.concat_arrays([cells[:1000], cells[::step]]) if len(cells) > 5000 else cells
    counts = [int(format.parse(sample).ok.sum()) for format in formats]
    return [format for format, count in zip(formats, counts, strict=True) if count and count >= 0.97 * max(counts)]


def _swapped(format: TimeFormat) -> str:
    return re.sub(r"[md]", lambda found: "d" if found[0] == "m" else "m", format.pattern)


def _candidates(cells: pa.Array, dayfirst: bool | None, integers: bool) -> list[TimeFormat]:
    patterns: dict[str, None] = {}
    for specimen in _specimens(cells):
        for pattern in _patterns(specimen, integers):
            patterns.setdefault(pattern)
    if dayfirst is not None:
        unwanted = re.compile(r"%-?m[^%]%-?d[^%]%[Yy]" if dayfirst else r"%-?d[^%]%-?m[^%]%[Yy]")
        patterns = {pattern: None for pattern in patterns if not unwanted.match(pattern)}
    return [TimeFormat(pattern) for pattern in patterns]


def _specimens(cells: pa.Array) -> list[str]:
    """One cell of each of the commonest shapes, where a shape is the cell with its digits made alike."""
    step = max(1, len(cells) // 2000)
    sample = (
        [cell for cell in cells[::step].to_pylist() + cells[:500].to_pylist() if cell and len(cell) < 60]
        if len(cells)
        else []
    )
    shapes = Counter(re.sub(r"[A-Za-z]{3,}", "a", re.sub(r"\d", "9", cell)) for cell in sample)
    firsts: dict[str, str] = {}
    for cell in sample:
        firsts.setdefault(re.sub(r"[A-Za-z]{3,}", "a", re.sub(r"\d", "9", cell)), cell)
    return [firsts[shape] for shape, _ in shapes.most_common(8)]


def _patterns(cell: str, integers: bool) -> list[str]:
    if re.fullmatch(r"-?\d+(\.\d+)?", cell):
        return _digit_patterns(cell) if integers else []
    weekday = re.match(r"(?i)(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?(,? )", cell)
    prefix, rest = (f"%a{weekday[6]}", cell[weekday.end() :]) if weekday else ("", cell)
    found: list[str] = []
    for expression, patterns in _DATES:
        match = re.match(expression, rest)
        if not match:
            continue
        tails = _tails(rest[match.end() :], re.fullmatch(r"\d{8}", match[0]) is not None)
        found += [
            prefix + p.replace("{s}", match.groupdict().get("s") or "") + tail for p in patterns for tail in tails
        ]
    for expression, patterns in _PERIODS:
        match = re.fullmatch(expression, rest, re.IGNORECASE)
        if match:
            named = [p.replace("Q", "q") if "q" in rest else p for p in patterns]
            found += [prefix + p.replace("{s}", match.groupdict().get("s") or "") for p in named]
    return found


def _tails(text: str, compact: bool) -> list[str]:
    """Patterns of the time of day that follows a date: as written, then with it optional."""
    if not text:
        return [""]
    if compact and (short := re.fullmatch(r"(T| )(\d{2})(\d{2})?(\d{2})?(Z|[+-]\d{2}:?\d{2})?", text)):
        zone = _zone(short[5] or "")
        return [short[1] + "%H" + ("%M" if short[3] else "") + ("%S" if short[4] else "") + zone]
    match = _CLOCK.fullmatch(text)
    if not match:
        hour = re.fullmatch(r"([T ])\d{2}(Z|[+-]\d{2}:?\d{2})?", text)
        zone = re.fullmatch(r"Z|[+-]\d{2}:\d{2}", text)
        return [hour[1] + "%H" + _zone(hour[2] or "")] if hour else [_zone(text)] if zone else []
    lead = match["lead"] if match["lead"].strip() else " "
    hours = ("I", "-I") if match["p"] else ("H", "-H")
    half = (" " if match["p"].startswith(" ") else "") + ("%P" if match["p"].islower() else "%p") if match["p"] else ""
    mark = match["c"]
    seconds = f"{match['sec'][0]}%S" if match["sec"] else ""
    point = match["frac"][0] if match["frac"] else ""
    fraction = f"{point}%f" if point else ""
    zone = _zone(match["zone"] or "")
    tails = [f"{lead}%{h}{mark}%M{seconds}{fraction}{half}{zone}" for h in hours]
    if match["frac"] and len(match["frac"]) != 7:
        tails = [tail.replace("%f", f"%{len(match['frac']) - 1}f") for tail in tails] + tails
    loose_fraction = f"[{fraction}]" if fraction else ""
    loose_zone = f"[{zone}]" if zone else ""
    tails += [f"{lead}%{h}{mark}%M{seconds}{loose_fraction}{half}{zone}" for h in hours if fraction]
    tails += [
        f"[{lead}%{h}{mark}%M{f'[{seconds}{loose_fraction}]' if seconds else ''}{half}]{loose_zone}" for h in hours
    ]
    return tails


def _zone(text: str) -> str:
    blank = " " if text.startswith(" ") else ""
    word = text.strip()
    if not word:
        return ""
    if word in ("Z", "UTC", "GMT"):
        return blank + ("%Z" if word == "Z" else "%:Z")
    return blank + ("%:z" if ":" in word else "%z" if len(word) > 3 else "%-z")


def _digit_patterns(cell: str) -> list[str]:
    size = float(cell)
    found = [
        pattern for pattern, width in _DIGITS if len(cell) == width and cell.isdigit() and _plausible(pattern, cell)
    ]
    found += [
        p
        for p in _COUNTED
        if _EPOCH_RANGES[p][0] <= abs(size) <= _EPOCH_RANGES[p][1] and (p == "%s" or "." not in cell)
    ]
    if "." not in cell or re.fullmatch(r"-?\d+\.0+", cell):
        found.append("%i")
    return found


def _plausible(pattern: str, cell: str) -> bool:
    if pattern == "%Y":
        return 1700 <= int(cell) <= 2200
    return bool(TimeFormat(pattern).parse(pa.array([cell])).ok[0])
