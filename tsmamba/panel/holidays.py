"""Public holidays as a covariate that is known ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from mamba_data_prep.errors import UserError
from mamba_data_prep.series import Frequency, SeriesFrame
from mamba_data_prep.series.times.frequency import DAY, to_wall
from tsmamba.panel.panel import ID, TIME


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
    names = (*frame.future_covariates, name)
    table = frame.frame.assign(**known)
    return replace(frame, frame=table, future=ahead.assign(**later), future_covariates=names)


def holiday_flags(times: np.ndarray, frequency: Frequency, place: str) -> Float64[np.ndarray, " T"]:
    """1 where a time falls on a public holiday of its zone's calendar, else 0.

    Raises:
        UserError: see `with_holidays`.
    """
    import holidays  # costs a tenth of a second, which most forecasts can do without

    longest = {"duration": DAY, "day": 1, "business": 1, "open": 1}
    if frequency.step > longest.get(frequency.unit, 0):
        raise UserError("holidays need rows with dates, at most a day apart", found=f"step {frequency.alias}")
    dates = to_wall(times, frequency.zone).astype("datetime64[D]")
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
