"""Time zones: offsets and wall clocks become UTC instants, and the zone is kept for writing back."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd

from mamba_data_prep.errors import UserError
from mamba_data_prep.series.report import IngestReport
from mamba_data_prep.series.table import Table
from mamba_data_prep.series.times.column import TimeColumn
from mamba_data_prep.series.times.format import NO_OFFSET

SECOND = 1_000_000_000
_COMMON = (
    *("Europe/Berlin", "Europe/London", "Europe/Helsinki", "Europe/Lisbon", "America/New_York", "America/Chicago"),
    *("America/Denver", "America/Los_Angeles", "America/Halifax", "Australia/Sydney", "Pacific/Auckland"),
)


def to_instants(
    table: Table, column: TimeColumn, series: np.ndarray, zone: str | None, report: IngestReport
) -> tuple[np.ndarray, str | None]:
    """Gives times as UTC nanoseconds with their zone, or the wall clock as it is where no zone is known.

    Args:
        table: for lines in messages.
        column: the times.
        series: (n,) the number of the series that a row belongs to.
        zone: the zone that the user names, if any.
        report: where repairs are told.

    Raises:
        UserError: there is no such zone; a time does not exist in it; some times have an offset and others have none.
    """
    values, offset = column.times.values, column.times.offset
    if column.format.is_index:
        return values, None
    if zone is not None:
        _check_zone(zone)
    if offset is None:
        return (values, None) if zone is None else (_localized(table, values, series, zone, report), zone)
    absent = offset == NO_OFFSET
    if absent.any():
        if zone is None:
            row = int(np.flatnonzero(absent)[0])
            fix = "name the zone of those without: --timezone Europe/Berlin"
            raise UserError(
                "some times have an offset, others none", path=table.path, line=int(table.lines[row]), fix=fix
            )
        local = _localized(table, np.where(absent, values, values[~absent][0]), series, zone, report)
        what = "times without an offset were read in the zone that was named"
        report.repair("mixed_offsets", what, count=int(absent.sum()), lines=table.lines[absent][:5].tolist())
        return np.where(absent, local, values - np.where(absent, 0, offset) * SECOND), zone
    utc = values - offset * SECOND
    return utc, zone or _zone_of(utc, offset, table, report)


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        fix = "write it like Europe/Berlin, America/New_York or UTC"
        raise UserError("there is no such time zone", found=zone, accepted="an IANA name", fix=fix) from None


def _zone_of(utc: np.ndarray, offset: np.ndarray, table: Table, report: IngestReport) -> str:
    kinds = np.unique(offset)
    if len(kinds) == 1:
        seconds = int(kinds[0])
        sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
        return "UTC" if seconds == 0 else f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    order = np.argsort(utc, kind="stable")
    changes = np.flatnonzero(np.diff(offset[order]))
    rows = np.unique(np.concatenate([order[changes], order[changes + 1], order[:: max(1, len(order) // 500)]]))
    found = next((name for name in _candidates() if _agrees(name, utc[rows], offset[rows])), None)
    lines = table.lines[order[changes + 1]][:5].tolist()
    if found:
        report.note(
            "mixed_offsets", f"offsets change as in {found}; times are UTC inside", count=len(changes), lines=lines
        )
        return found
    what = "offsets change as in no known zone, so times are written back in UTC"
    report.repair("mixed_offsets", what, count=len(changes), lines=lines)
    return "UTC"


def _candidates() -> list[str]:
    return [
        *_COMMON,
        *sorted(name for name in available_timezones() - set(_COMMON) if "/" in name and not name.startswith("Etc")),
    ]


def _agrees(zone: str, utc: np.ndarray, offset: np.ndarray) -> bool:
    instants = pd.DatetimeIndex(utc.astype("datetime64[ns]"))
    wall = instants.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return bool(
        np.array_equal((wall.to_numpy() - instants.to_numpy()).astype("timedelta64[s]").astype(np.int64), offset)
    )


def _localized(table: Table, wall: np.ndarray, series: np.ndarray, zone: str, report: IngestReport) -> np.ndarray:
    """Wall clock to UTC; of an hour that clocks repeat, a series' first row of a time is summer, its second winter."""
    times = pd.DatetimeIndex(wall.astype("datetime64[ns]"))
    summer = times.tz_localize(zone, ambiguous=np.ones(len(wall), dtype=bool), nonexistent="NaT")
    if summer.hasnans:
        row = int(np.flatnonzero(summer.isna())[0])
        raise UserError(
            f"no such time in {zone}: clocks go forward over it",
            path=table.path,
            line=int(table.lines[row]),
            found=str(times[row]),
            fix="name another zone, or leave --timezone out",
        )
    winter = times.tz_localize(zone, ambiguous=np.zeros(len(wall), dtype=bool), nonexistent="NaT")
    twice = np.flatnonzero(summer != winter)
    first = np.ones(len(wall), dtype=bool)
    if len(twice):
        keys = pd.DataFrame({"series": series[twice], "wall": wall[twice]})
        again = keys.duplicated(keep="last" if _falls(wall, series) else "first").to_numpy()
        first[twice[again]] = False
        what = f"an hour that clocks repeat in {zone}: the first is read as summer time, the second as winter time"
        report.repair("repeated_hour", what, count=len(twice), lines=table.lines[twice[:5]].tolist())
    chosen = times.tz_localize(zone, ambiguous=first, nonexistent="NaT")
    return chosen.tz_convert("UTC").tz_localize(None).to_numpy(dtype="datetime64[ns]").astype(np.int64)


def _falls(wall: np.ndarray, series: np.ndarray) -> bool:
    """Whether rows run from the latest to the earliest."""
    same = np.diff(series) == 0
    steps = np.diff(wall)[same]
    return len(steps) > 0 and bool((steps < 0).mean() > 0.5)
