"""Forecasting methods under one roof: the baselines, ridge regression and the Mamba models, each fitted on a panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64

from mamba_data_prep.errors import UserError
from tsmamba.config import load_config
from tsmamba.fitting.fitted import FittedModel
from tsmamba.methods import baselines
from tsmamba.methods.covariate_effects import Effects
from tsmamba.methods.names import (
    LOCAL,
    LOG_ENDING,
    METHODS,
    PRETRAINED,
    X_ENDING,
    no_such_method,
)
from tsmamba.methods.pretrained import Pretrained, joined, seasons_of, shares
from tsmamba.methods.task import Task
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel

_LARGEST = 700.0
"""Logarithms beyond which a double overflows."""

_FORMS = 24
"""Series whose form of exponential smoothing or order of ARIMA is kept; the others choose theirs at every forecast."""


@runtime_checkable
class FittedMethod(Protocol):
    """A method that was fitted on a panel, and forecasts that panel, a longer one, or another of its kind."""

    @property
    def name(self) -> str:
        """Under which it was fitted."""
        ...

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """Forecasts what follows each series' end, or what followed it so many rows earlier, unseen.

        A method without quantiles of its own gives its point forecast for each.
        """
        ...


@dataclass(frozen=True)
class Local:
    """A method that looks at one series at a time.

    Attributes:
        name: one of `LOCAL`.
        task: what is forecast.
        forms: of exponential smoothing, or orders of ARIMA, by series; see `baselines.ets_form` and `arima_order`.
    """

    name: str
    task: Task
    forms: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fit(cls, name: str, panel: Panel, task: Task) -> Local:
        """Chooses each series' form of exponential smoothing or order of ARIMA; other methods have nothing to fit."""
        choose = {"ets": baselines.ets_form, "arima": baselines.arima_order}.get(name)
        if choose is None:
            return cls(name, task)
        chosen = evenly(panel, _FORMS).series
        return cls(name, task, {one.unique_id: choose(one.values, task.season) for one in chosen})

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """See `FittedMethod`."""
        rows = [self._point(one.unique_id, one.before(steps_back).values) for one in panel.series]
        point = np.stack(rows) if rows else np.zeros((0, self.task.horizon))
        return _without_spread(panel, point, self.task.levels)

    def _point(self, unique_id: str, history: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " H"]:
        horizon, season = self.task.horizon, self.task.season
        match self.name:
            case "naive":
                return baselines.naive(history, horizon)
            case "seasonal_naive":
                return baselines.seasonal_naive(history, horizon, season)
            case "drift":
                return baselines.drift(history, horizon)
            case "theta":
                return baselines.theta(history, horizon, season)
            case "arima":
                return baselines.arima(history, horizon, season, self.forms.get(unique_id, baselines.ANY_ORDER))
            case "croston":
                return baselines.croston(history, horizon)
            case _:
                return baselines.ets(history, horizon, season, self.forms.get(unique_id, baselines.ANY_FORM))


@dataclass(frozen=True)
class Learned:
    """A model that was learnt from all series.

    Attributes:
        name: one of `LEARNED`, perhaps with `_log` behind it.
        task: what is forecast.
        model: the fitted model.
    """

    name: str
    task: Task
    model: FittedModel

    @property
    def logarithmic(self) -> bool:
        """Whether the model reads and forecasts logarithms."""
        return self.name.endswith(LOG_ENDING)

    @classmethod
    def fit(cls, name: str, panel: Panel, task: Task, **options: Any) -> Learned:
        """Fits the model.

        Args:
            name: the method's.
            panel: the series.
            task: what is forecast.
            options: of `fit_panel` (out, resume, note).

        Raises:
            UserError: the series are too short, or not positive where logarithms are to be taken.
        """
        from tsmamba.fitting.fit import fit_panel  # brings the training libraries, which the other methods do without

        plain = name.removesuffix(LOG_ENDING)
        model = "auto" if plain == "mamba" else plain
        config = load_config(
            model,
            **settings_of(model, task.settings),
            levels=list(task.levels),
            seed=task.seed,
            train__max_time=task.max_time,
            train__accelerator={"cuda": "gpu"}.get(task.device, task.device),
        )
        if name.endswith(LOG_ENDING):
            if not is_positive(panel):
                raise UserError("only positive values have logarithms", fix=f"use the method {plain}")
            panel = logarithms(panel)
        return cls(name, task, fit_panel(panel, task.horizon, config, **options))

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """See `FittedMethod`; a series without an observed value in the model's window gets the naive forecast."""
        cut = panel.before(steps_back)
        read, seen = self._read(cut), self._seen(cut)
        point = Local("naive", self.task).predict(cut).point.copy()
        if seen.any():
            known = [name for name, has_values in zip(cut.ids, seen, strict=True) if has_values]
            point[seen] = self._values(self.model.predict(read.select(known)))
        return _without_spread(panel, point, self.task.levels)

    def predict_many(self, panel: Panel, steps_back: Sequence[int]) -> list[Forecast]:
        """What `predict` gives from several rows; a causal model reads each series once for all of them."""
        known = self.model.scaler.series
        if not self.model.is_causal or not all(name in known for name in panel.ids):
            return [self.predict(panel, back) for back in steps_back]
        found = []
        for back, forecast in zip(steps_back, self.model.predict_after(self._read(panel), steps_back), strict=True):
            seen = self._seen(panel.before(back))[:, None]
            point = np.where(seen, self._values(forecast), Local("naive", self.task).predict(panel, back).point)
            found.append(_without_spread(panel, point, self.task.levels))
        return found

    def _read(self, panel: Panel) -> Panel:
        return logarithms(panel) if self.logarithmic else panel

    def _seen(self, panel: Panel) -> Bool[np.ndarray, " S"]:
        """Which series have an observed value where the model looks."""
        rows = len if self.model.is_causal else lambda one: min(self.model.lookback, len(one))
        parts = [one.values[len(one) - rows(one) :] for one in self._read(panel).series]
        return np.array([bool(np.isfinite(part).any()) for part in parts], dtype=np.bool_)

    def _values(self, forecast: Forecast) -> Float64[np.ndarray, "S H"]:
        """Points alone: the errors of rolling origins, of which there are more, give the quantiles."""
        point = forecast.point.astype(np.float64)
        return np.exp(np.minimum(point, _LARGEST)) if self.logarithmic else point


@dataclass(frozen=True)
class Combination:
    """The mean of several methods' forecasts, in which they count as `shares` says.

    Source: Bates, Granger 1969, The combination of forecasts, Operational Research Quarterly 20(4).

    Attributes:
        members: the methods.
        season: rows of a season.
    """

    members: tuple[FittedMethod, ...]
    season: int = 1

    @property
    def name(self) -> str:
        """The members' names."""
        return " + ".join(member.name for member in self.members)

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """See `FittedMethod`."""
        parts = shares([member.name for member in self.members], seasons_of(panel.before(steps_back), self.season))
        return joined([member.predict(panel, steps_back) for member in self.members], parts)


@dataclass(frozen=True)
class Apart:
    """Forecasts some series by methods of their own, and every other one by the usual method.

    Attributes:
        usual: the common method.
        own: the methods of the series that have one of their own.
    """

    usual: FittedMethod
    own: Mapping[str, FittedMethod]

    @property
    def name(self) -> str:
        """The usual method's."""
        return self.usual.name

    def parts(self) -> list[FittedMethod]:
        """The different methods, the usual one first."""
        return list({id(one): one for one in (self.usual, *self.own.values())}.values())

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """See `FittedMethod`."""
        return self.predict_many(panel, [steps_back])[0]

    def predict_many(self, panel: Panel, steps_back: Sequence[int]) -> list[Forecast]:
        """What `predict` gives from several rows."""
        ids = panel.ids
        method_of = [self.own.get(name, self.usual) for name in ids]
        found: list[tuple[list[int], list[Forecast]]] = []
        for part in self.parts():
            places = [place for place, one in enumerate(method_of) if one is part]
            if places:
                found.append((places, forecasts(part, panel.select([ids[place] for place in places]), steps_back)))
        if not found:
            return forecasts(self.usual, panel, steps_back)
        return [
            self._together(ids, [(places, many[number]) for places, many in found]) for number in range(len(steps_back))
        ]

    @staticmethod
    def _together(ids: Sequence[str], parts: Sequence[tuple[list[int], Forecast]]) -> Forecast:
        order = np.argsort([place for places, _ in parts for place in places])
        point = np.concatenate([one.point for _, one in parts])[order]
        quantiles = np.concatenate([one.quantiles for _, one in parts])[order]
        return replace(parts[0][1], ids=tuple(ids), point=point, quantiles=quantiles)


def forecasts(fitted: FittedMethod, panel: Panel, steps_back: Sequence[int]) -> list[Forecast]:
    """Forecasts from several rows, in as few passes as the method can."""
    if isinstance(fitted, Apart | Learned | Pretrained):
        return fitted.predict_many(panel, steps_back)
    return [fitted.predict(panel, back) for back in steps_back]


def assembled(
    fits: Mapping[str, FittedMethod], members: Sequence[str], own: Mapping[str, Sequence[str]], season: int
) -> FittedMethod:
    """One method of several: the mean of `members`, and of other ones for the series in `own`.

    Args:
        fits: the fitted methods by name.
        members: names of the usual ones.
        own: names by series.
        season: rows of a season.
    """
    distinct = {tuple(names): _mean_of([fits[name] for name in names], season) for names in (members, *own.values())}
    usual = distinct[tuple(members)]
    return Apart(usual, {series: distinct[tuple(names)] for series, names in own.items()}) if own else usual


def _mean_of(members: Sequence[FittedMethod], season: int) -> FittedMethod:
    return members[0] if len(members) == 1 else Combination(tuple(members), season)


def parts_of(fitted: FittedMethod) -> list[FittedMethod]:
    """The single methods of which one consists."""
    if isinstance(fitted, Combination):
        return list(fitted.members)
    if isinstance(fitted, Apart):
        return list({one.name: one for part in fitted.parts() for one in parts_of(part)}.values())
    return [fitted]


@dataclass(frozen=True)
class Regressed:
    """A method that forecasts what the linear effects of covariates known ahead leave of the series.

    Attributes:
        effects: of the covariates.
        inner: the method, fitted on what they leave.
    """

    effects: Effects
    inner: FittedMethod

    @classmethod
    def fit(cls, name: str, panel: Panel, task: Task, **options: Any) -> Regressed:
        """Fits the effects, then the method of this name.

        Raises:
            UserError: the panel has no covariates that are known ahead.
        """
        if not panel.future_names:
            raise UserError("there are no covariates known ahead", fix=f"give them, or use the method {name}")
        effects = Effects.fit(panel, task.season)
        return cls(effects, fit_method(name, effects.without(panel), task, **options))

    @property
    def name(self) -> str:
        """The method's, with `_x` behind it."""
        return self.inner.name + X_ENDING

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """See `FittedMethod`."""
        cut = panel.before(steps_back)
        found = self.inner.predict(self.effects.without(cut))
        added = self.effects.ahead(cut, found.point.shape[1])
        return replace(found, point=found.point + added, quantiles=found.quantiles + added[..., None])


def settings_of(model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are meant for a model, as `load_config` takes them, without those that a task holds itself."""
    if settings.get("model", model) != model:
        return {}
    own = ("model", "levels", "seed", "train.max_time", "train.accelerator")
    return {key.replace(".", "__"): value for key, value in settings.items() if key not in own}


def learned(fitted: FittedMethod) -> Learned | None:
    """The model that a method forecasts with, if it is a learnt one."""
    inner = fitted.inner if isinstance(fitted, Regressed) else fitted
    return inner if isinstance(inner, Learned) else None


def fit_method(name: str, panel: Panel, task: Task, **options: Any) -> FittedMethod:
    """Fits a method by its name.

    Args:
        name: one of `LOCAL`, `PRETRAINED` or `LEARNED`; with `_log` behind a learnt one for logarithms, or with `_x`
            behind any to take off what covariates known ahead add linearly.
        panel: the series; nothing outside of it is read.
        task: what is forecast.
        options: of `fit_panel`, for learnt methods.

    Raises:
        UserError: there is no such method, or it cannot be fitted on these series.
    """
    if name not in METHODS:
        raise no_such_method(name)
    if name.endswith(X_ENDING):
        return Regressed.fit(name.removesuffix(X_ENDING), panel, task, **options)
    if name in PRETRAINED:
        return Pretrained.fit(name, task)
    return Local.fit(name, panel, task) if name in LOCAL else Learned.fit(name, panel, task, **options)


def evenly(panel: Panel, most: int) -> Panel:
    """At most so many of the series, spread evenly over the panel."""
    if len(panel) <= most:
        return panel
    places = np.linspace(0, len(panel) - 1, most).round().astype(np.int64)
    return replace(panel, series=tuple(panel.series[place] for place in places))


def is_positive(panel: Panel) -> bool:
    """Whether every observed value is above zero."""
    lows = [np.nanmin(one.values) for one in panel.series if np.isfinite(one.values).any()]
    return bool(lows) and float(min(lows)) > 0


def are_intermittent(panel: Panel) -> bool:
    """Whether most series are those of an intermittent demand."""
    found = [baselines.is_intermittent(one.values) for one in panel.series]
    return 2 * sum(found) > len(found)


def logarithms(panel: Panel) -> Panel:
    """The panel's logarithms; values that are not positive become missing."""
    return replace(panel, series=tuple(replace(one, values=_log(one.values)) for one in panel.series))


def _log(values: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
    positive = values > 0
    return np.log(values, out=np.full(len(values), np.nan), where=positive)


def _without_spread(panel: Panel, point: Float64[np.ndarray, "S H"], levels: tuple[float, ...]) -> Forecast:
    return Forecast(tuple(panel.ids), levels, point, np.repeat(point[..., None], len(levels), axis=-1))
