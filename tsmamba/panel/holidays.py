"""Public holidays as a covariate that is known ahead."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

import numpy as np
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency, SeriesFrame
from mamba_data_prep.series.times.frequency import DAY, to_wall
from tsmamba.panel.panel import ID, TIME

_CLOCKS_OF_NO_PLACE = ("UTC",)
"""Zones in which times are kept that were observed anywhere."""


def column_of(place: str) -> str:
    """The name of the covariate."""
    return f"holidays {place}"


def with_holidays(frame: SeriesFrame, place: str | None, rows: int) -> SeriesFrame:
    """The frame with a covariate that is 1 on public holidays, for its rows and for those that follow.

    Args:
        frame: series with steps of at most a day.
        place: a country, as DE, or a part of one, as DE-BY; None adds nothing.
        rows: how many rows after each series' end.

    Raises:
        UserError: no holidays are known of the place, or the steps are longer than a day.
    """
    if place is None or column_of(place) in frame.future_covariates:
        return frame
    name = column_of(place)
    ahead = frame.future_times(rows)
    if frame.future is not None:
        ahead = ahead.merge(frame.future, on=[ID, TIME], how="outer", sort=False)
    known = {name: holiday_flags(np.asarray(frame.frame[TIME]), frame.frequency, place)}
    later = {name: holiday_flags(np.asarray(ahead[TIME]), frame.frequency, place)}
    if local_zone(frame.frequency.zone, place) == frame.frequency.zone in _CLOCKS_OF_NO_PLACE:
        what = (
            f"days of {place} are counted in {frame.frequency.zone}, as it has several time zones: --timezone names one"
        )
        frame.report.note("holidays", what)
    names = (*frame.future_covariates, name)
    table = frame.frame.assign(**known)
    return replace(frame, frame=table, future=ahead.assign(**later), future_covariates=names)


def holiday_flags(times: np.ndarray, frequency: Frequency, place: str) -> Float64[np.ndarray, " T"]:
    """1 where a time falls on a public holiday by the clocks of its zone, or of the place (see `local_zone`), else 0.

    Raises:
        UserError: see `with_holidays`.
    """
    import holidays  # costs a tenth of a second, which most forecasts can do without

    longest = {"duration": DAY, "day": 1, "business": 1, "open": 1}
    if frequency.step > longest.get(frequency.unit, 0):
        raise UserError("holidays need rows with dates, at most a day apart", found=f"step {frequency.alias}")
    dates = to_wall(times, local_zone(frequency.zone, place)).astype("datetime64[D]")
    if not len(dates):
        return np.zeros(0)
    years = np.unique(dates.astype("datetime64[Y]").astype(np.int64) + 1970).tolist()
    country, _, part = place.upper().partition("-")
    try:
        days = holidays.country_holidays(country, subdiv=part or None, years=years)
    except NotImplementedError as error:
        raise UserError(
            "no holidays are known of this place", found=place, accepted="a country as DE, or a part of one as DE-BY",
            fix=str(error).splitlines()[0],
        ) from None  # fmt: skip
    return np.isin(dates, np.array(sorted(days), dtype="datetime64[D]")).astype(np.float64)


def local_zone(zone: str | None, place: str) -> str | None:
    """The zone on whose clocks a place's days begin.

    It is the zone of the times; of times in UTC that of the country, where all of it has the same time.

    Args:
        zone: of the times; None where they are the wall clock's.
        place: a country, as DE, or a part of one, as DE-BY.
    """
    if zone not in _CLOCKS_OF_NO_PLACE:
        return zone
    zones = _zones_of(place.upper().partition("-")[0])
    alike = len({_offsets(name) for name in zones}) == 1  # of no known country there are none
    return zones[0] if alike else zone


@cache
def _zones_of(country: str) -> tuple[str, ...]:
    """The time zones of a country, by the database that pandas brings."""
    table = resources.files("tzdata").joinpath("zoneinfo/zone.tab").read_text("utf-8")
    rows = [line.split("\t") for line in table.splitlines() if not line.startswith("#")]
    return tuple(row[2] for row in rows if row[0] == country)


def _offsets(zone: str) -> tuple[object, ...]:
    """What clocks are ahead of UTC in a winter and in a summer."""
    return tuple(datetime(2024, month, 1, tzinfo=ZoneInfo(zone)).utcoffset() for month in (1, 7))
