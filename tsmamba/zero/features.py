"""What a pre-trained forecaster reads of a history: values without a unit, and simple continuations of the series.

Shapes: `B` series, `C` rows of context (the last one is the present), `H` rows ahead, `J` continuations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

ROW_FEATURES = 8
"""Numbers that a row of the context has."""
CONTINUATIONS = 9
"""Simple forecasts beside the base, whose differences from it are read and mixed."""
AHEAD_FEATURES = CONTINUATIONS + 4
"""Numbers that a row ahead has."""
SERIES_FEATURES = 8
"""Numbers that a whole series has."""

_FEW = 4
_LEAST = 1e-9


@dataclass(frozen=True)
class Context:
    """The latest rows of some series.

    Attributes:
        values: (B, C) in their own units; whatever stands where nothing was observed is ignored.
        seen: (B, C) which were observed, at least one a series.
        season: (B,) rows of a season, 1 where there is none.
        cycle: (B,) rows of a second, longer season, 0 where there is none.
    """

    values: Float[Tensor, "B C"]
    seen: Bool[Tensor, "B C"]
    season: Integer[Tensor, " B"]
    cycle: Integer[Tensor, " B"]


@dataclass(frozen=True)
class Features:
    """What the network reads, and what turns its answers into values.

    Attributes:
        rows: (B, C, ROW_FEATURES) of the context.
        ahead: (B, H, AHEAD_FEATURES) of the rows ahead.
        series: (B, SERIES_FEATURES) of the whole series.
        base: (B, H) the forecast that answers are added to: the last season again, or the last value.
        continuations: (B, H, J) other simple forecasts less the base, in `unit`s.
        unit: (B, 1) the mean absolute change over a season; what the answers are counted in. Above 0.
        constant: (B, 1) True where nothing ever changed, and the forecast is the base.
    """

    rows: Float[Tensor, "B C R"]
    ahead: Float[Tensor, "B H A"]
    series: Float[Tensor, "B S"]
    base: Float[Tensor, "B H"]
    continuations: Float[Tensor, "B H J"]
    unit: Float[Tensor, "B 1"]
    constant: Bool[Tensor, "B 1"]


def features(context: Context, horizon: int) -> Features:
    """Describes histories so that shifting and scaling a series changes nothing but `base` and `unit`."""
    seen = context.seen
    last, level_unit = _location(context.values, seen)
    x = torch.where(seen, (context.values - last) / level_unit, 0.0)  # the last observed value is 0, the deviation 1
    season = context.season[:, None]
    before, has_before = _lagged(x, seen, season)
    previous, has_previous = _lagged(x, seen, torch.ones_like(season))
    change = _mean_size(x - before, has_before & seen)
    step = _mean_size(x - previous, has_previous & seen)
    enough = (has_before & seen).sum(dim=1, keepdim=True) >= _FEW
    unit = torch.where(enough & (change > _LEAST), change, step)
    constant = unit <= _LEAST
    unit = torch.where(constant, 1.0, unit)
    mean = _trailing_mean(x, seen, season)
    base, continuations, known = _continue(x, seen, mean, context, horizon)
    continuations = (continuations - base[..., None]) / unit[..., None] * known
    rows = torch.stack(
        [
            x, (x / unit).asinh(), ((x - before) / unit).clamp(-20, 20) * has_before,
            ((x - previous) / unit).clamp(-20, 20) * has_previous, ((x - mean) / unit).asinh(),
            has_before.to(x.dtype), has_previous.to(x.dtype), torch.ones_like(x),
        ],
        dim=-1,
    ) * seen[..., None]  # fmt: skip
    ones = torch.arange(1, horizon + 1, device=x.device, dtype=x.dtype)
    at = torch.stack([ones.log1p() / 4, ones / 64], dim=-1).expand(len(x), -1, -1)
    phase = 2 * torch.pi * (ones / season)
    around = torch.stack([phase.sin(), phase.cos()], dim=-1) * (season[..., None] > 1)
    ahead = torch.cat([continuations.asinh(), at, around], dim=-1)
    count = seen.sum(dim=1, keepdim=True).to(x.dtype)
    cycle = context.cycle[:, None]
    series = torch.cat(
        [
            season.log() / 4, (cycle + 1).log() / 6, count.log() / 5, (count / season).log1p() / 3,
            unit.log(), (step.clamp(min=_LEAST) / unit).log().clamp(-5, 5), (season == 1).float(), enough.float(),
        ],
        dim=1,
    ).to(x.dtype)  # fmt: skip
    return Features(rows, ahead, series, base * level_unit + last, continuations, unit * level_unit, constant)


def _location(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The last observed value and the deviation of each series, (B, 1); 1 for a deviation of nothing."""
    places = torch.arange(1, values.shape[1] + 1, device=values.device) * seen
    last = torch.gather(values, 1, places.argmax(dim=1, keepdim=True))
    moved = torch.where(seen, values - last, 0.0)
    count = seen.sum(dim=1, keepdim=True).clamp(min=1)
    mean = moved.sum(dim=1, keepdim=True) / count
    deviation = (torch.where(seen, moved - mean, 0.0).square().sum(dim=1, keepdim=True) / count).sqrt()
    size = torch.where(seen, values, 0.0).abs().amax(dim=1, keepdim=True)
    rounding = 8 * torch.finfo(values.dtype).eps * size
    return last, torch.where(deviation > rounding, deviation, 1.0)


def _mean_size(x: Tensor, where: Tensor) -> Tensor:
    """Mean absolute value, (B, 1); 0 of nothing."""
    return torch.where(where, x.abs(), 0.0).sum(dim=1, keepdim=True) / where.sum(dim=1, keepdim=True).clamp(min=1)


def _at(x: Tensor, seen: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Values at places (B, n) and whether they were observed; 0 outside of the context."""
    inside = (place >= 0) & (place < x.shape[1])
    place = place.clamp(0, x.shape[1] - 1)
    known = torch.gather(seen, 1, place) & inside
    return torch.gather(x, 1, place) * known, known


def _lagged(x: Tensor, seen: Tensor, lag: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's value some rows earlier, and whether there is one."""
    return _at(x, seen, torch.arange(x.shape[1], device=x.device) - lag)


def _trailing_mean(x: Tensor, seen: Tensor, width: Tensor) -> Tensor:
    """The mean of the observed values among the last `width` rows up to each row; 0 of nothing."""
    sums = torch.nn.functional.pad(torch.stack([x, seen.to(x.dtype)]).double().cumsum(dim=2), (1, 0))
    end = torch.arange(1, x.shape[1] + 1, device=x.device).expand(x.shape)
    start = (end - width).clamp(min=0)
    total, count = (torch.gather(part, 1, end) - torch.gather(part, 1, start) for part in sums)
    return (total / count.clamp(min=1)).to(x.dtype)


def _continue(
    x: Tensor, seen: Tensor, mean: Tensor, context: Context, horizon: int
) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H J"], Bool[Tensor, "B H J"]]:
    """The base, the other continuations, and which of these the history is long enough for."""
    n = x.shape[1]
    season, cycle = context.season[:, None], context.cycle[:, None]
    ones = torch.arange(1, horizon + 1, device=x.device)
    ahead = ones.expand(len(x), -1)
    back = (ones - 1) // season + 1  # how many seasons back the same season's latest row lies
    places = [n - 1 + ones - (back + more) * season for more in range(3)]
    same = [_at(x, seen, place) for place in places]
    means = [torch.gather(mean, 1, place.clamp(0, n - 1)) for place in places]
    now = mean[:, -1:].expand(-1, horizon)
    zero = torch.zeros_like(now)
    seasonal = (season > 1) & same[0][1]
    base = torch.where(seasonal, same[0][0], zero)
    first = seen.to(torch.uint8).argmax(dim=1, keepdim=True)
    whole = -torch.gather(x, 1, first) / (n - 1 - first).clamp(min=1) * ahead
    recent = [_slope(x, seen, torch.full_like(season, rows)) * ahead for rows in (_FEW, 10)]
    a_season_ago = torch.gather(mean, 1, (n - 1 - season).clamp(min=0))
    growth = (now - a_season_ago) / season
    grown = same[0][0] + growth * back * season
    longer, has_longer = _at(x, seen, n - 1 + ones - ((ones - 1) // cycle.clamp(min=1) + 1) * cycle)
    has_longer = has_longer & (cycle > 1)
    two_seasons = (n - 1 - 2 * season >= first).expand(-1, horizon)
    options = [
        (zero, torch.ones_like(seasonal)),
        (same[1][0], seasonal & same[1][1]),
        (same[2][0], seasonal & same[2][1]),
        (grown, seasonal & two_seasons),
        (same[0][0] - means[0] + now, seasonal),
        (base + whole, torch.ones_like(seasonal)),
        (base + recent[0], torch.ones_like(seasonal)),
        (base + recent[1], torch.ones_like(seasonal)),
        (longer, has_longer),
    ]
    values, known = (torch.stack(part, dim=-1) for part in zip(*options, strict=True))
    return base, values, known


def _slope(x: Tensor, seen: Tensor, rows: Tensor) -> Tensor:
    """The mean change a row over the last few rows, (B, 1), from the observed value nearest to their beginning."""
    n = x.shape[1]
    places = torch.arange(n, device=x.device)
    early = seen & (places <= n - 1 - rows)
    first = seen.to(torch.uint8).argmax(dim=1, keepdim=True)
    place = torch.where(early.any(dim=1, keepdim=True), (places * early).amax(dim=1, keepdim=True), first)
    return -torch.gather(x, 1, place) / (n - 1 - place).clamp(min=1)
