"""`Forecaster`: from a table of series to forecasts with intervals, in scikit-learn's manner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import recorded_command, versions
from mamba_data_prep.series import ReadOptions, SeriesFrame
from mamba_training.bundle import Bundle, load_bundle, save_bundle
from mamba_training.model_card import markdown_table, model_card, versions_line
from tsmamba.config import LEVELS, Note
from tsmamba.evaluation.conformal import Calibration
from tsmamba.evaluation.outcome import closed_times, unknown_ahead
from tsmamba.evaluation.selection import Selection, describe, select
from tsmamba.fitting.fitted import BUNDLE_KIND, FittedModel
from tsmamba.methods.covariate_effects import Effects
from tsmamba.methods.methods import FittedMethod, Learned, Local, Regressed, Task, assembled, parts_of
from tsmamba.methods.names import LOCAL, PRETRAINED, reads_ahead
from tsmamba.methods.pretrained import Pretrained
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.holidays import with_holidays
from tsmamba.panel.panel import Panel
from tsmamba.panel.seasonality import choose_season
from tsmamba.panel.source import Source
from tsmamba.panel.tables import MOST_USUAL, default_horizon, forecast_table, frame_of, panel_of, with_zone
from tsmamba.zero.network import ZeroConfig, ZeroNetwork

_ZERO = "zero."
"""Stands before the names of the pre-trained network's weights in a bundle."""


class Forecaster:
    """Forecasts every series of a table, by the method that was nearest on the past.

    Args:
        horizon: rows ahead; a season or so by default.
        method: `auto` compares them all; or one of naive, seasonal_naive, drift, ets, theta, arima,
            croston, zero, ridge, mamba, smamba, tsmamba, causal; with `_log` behind a learnt one to learn logarithms,
            with `_x` behind any to take off first what covariates known ahead add linearly.
        levels: of the quantiles, ascending.
        season: rows of a season; found in the data by default.
        seed: of whatever is drawn at random.
        max_time: at which training stops, such as "90s".
        device: auto, cpu or cuda.
        holidays: a country whose public holidays are told to models, as DE, or a part of one, as DE-BY.
        settings: of learnt methods, by dotted key, as `{"train.epochs": 5}`; `tsmamba info auto` lists them.

    Attributes:
        selection_: what was compared and taken, after `fit`.
        task_: horizon, season and levels in use.
        frame_: the series that were fitted on; None for a forecaster that was loaded.
        source_: how their table is written, so that more rows of it can be read.

    Example:
        forecast = Forecaster(horizon=12).fit(table).predict()
    """

    def __init__(
        self,
        horizon: int | None = None,
        method: str = "auto",
        *,
        levels: tuple[float, ...] = LEVELS,
        season: int | None = None,
        seed: int = 0,
        max_time: str | float | None = None,
        device: str = "auto",
        holidays: str | None = None,
        settings: Mapping[str, Any] | None = None,
        compare: bool = False,
    ) -> None:
        self.horizon = horizon
        self.method = method
        self.levels = levels
        self.season = season
        self.seed = seed
        self.max_time = max_time
        self.device = device
        self.holidays = holidays
        self.settings = settings
        self.compare = compare

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Gives the constructor's arguments by name."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    def set_params(self, **params: Any) -> Forecaster:
        """Changes some of the constructor's arguments; takes effect with the next `fit`.

        Raises:
            ValueError: there is no such argument.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"Forecaster has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def fit(
        self,
        frame: pd.DataFrame | SeriesFrame,
        *,
        future: pd.DataFrame | None = None,
        static: pd.DataFrame | None = None,
        options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
        note: Note = lambda text: None,
        folder: Path | None = None,
    ) -> Forecaster:
        """Compares methods on the past, takes the best and fits it on all rows.

        Args:
            frame: long (`unique_id, ds, y` and covariates) or wide; or what `read_series` gave.
            future: rows of the covariates that are known for the times to forecast.
            static: one row a series.
            options: how to read a data frame.
            note: told what is being done.
            folder: keeps what is trained, so that the same call goes on where this one was stopped.

        Raises:
            UserError: the table cannot be understood, or a parameter is out of range.
        """
        self.frame_: SeriesFrame | None = _as_frame(frame, options, future, static)
        self._panel_ = self._panel(self.frame_, self.horizon or MOST_USUAL)
        self.task_ = self._task(self.frame_, self._panel_)
        methods = [] if self.method == "auto" else [self.method]
        self.selection_ = select(self._panel_, self.task_, methods, note=note, folder=folder, beside=self.compare)
        self.frequency_, self.source_ = self.frame_.frequency.alias, Source.of(self.frame_)
        self.about_ = describe(self.selection_)
        return self

    def predict(self, horizon: int | None = None, frame: pd.DataFrame | SeriesFrame | None = None) -> pd.DataFrame:
        """Forecasts what follows the series.

        Args:
            horizon: rows ahead; what was fitted by default. Fewer rows are the first of the fitted ones; for more,
                the methods are compared and fitted again on the series of `fit`, which takes as long as `fit` took
                and leaves this forecaster as it is.
            frame: series to forecast in place of those fitted on, with the same step and covariates.

        Returns:
            `unique_id, ds, yhat` and a column for each quantile.

        Raises:
            UserError: nothing was fitted, or the horizon is longer than that of a forecaster that was loaded.
        """
        self._check_fitted()
        if horizon is not None and horizon < 1:
            raise UserError("the horizon must be at least 1 row", found=horizon)
        if horizon is not None and horizon > self.task_.horizon:
            return self._longer(horizon).predict(frame=frame)
        given = self.frame_ if frame is None else _as_frame(frame, ReadOptions(), None, None)
        if given is None:
            raise UserError("this forecaster was loaded without its series", fix="give predict a frame")
        forecast = self.forecast(given).first(horizon or self.task_.horizon)
        return with_zone(forecast_table(forecast, given), given.zone)

    def forecast(self, frame: SeriesFrame) -> Forecast:
        """Point forecasts and calibrated quantiles of a frame's series, as arrays; `about_` holds notes on them.

        Raises:
            UserError: the frame's step or covariates are others than those fitted on.
        """
        self._check_fitted()
        if frame.frequency.alias != self.frequency_:
            raise UserError(
                "the series have another step than those the model was fitted on",
                path=frame.report.path or None, found=frame.frequency.alias, accepted=self.frequency_,
            )  # fmt: skip
        panel = self._panel_ if frame is self.frame_ else self._panel(frame, self.task_.horizon)
        unknown = unknown_ahead(self.selection_, panel, self.task_.horizon)
        told = [*self.selection_.notes, *unknown, *closed_times(frame.frequency)]
        self.about_ = {**self.about_, "notes": told}
        return self.selection_.calibration.apply(self.selection_.method.predict(panel), panel)

    def save(self, folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
        """Writes a bundle that runs no code when it is read: weights, `config.json` and a card.

        Args:
            folder: of the bundle.
            extra: further plain values to keep.
        """
        self._check_fitted()
        outer = parts_of(self.selection_.method)
        members = [one.inner if isinstance(one, Regressed) else one for one in outer]
        learnt = next((one for one in members if isinstance(one, Learned)), None)
        locals_ = [one for one in members if isinstance(one, Local)]
        config: dict[str, Any] = learnt.model.describe() if learnt else {"kind": BUNDLE_KIND, "versions": versions()}
        config["forecaster"] = {
            "members": list(self.selection_.members),
            "own": {series: list(names) for series, names in self.selection_.own.items()},
            "task": asdict(self.task_),
            "parameters": {**self.get_params(), "levels": list(self.levels)},
            "frequency": self.frequency_,
            "source": self.source_.to_dict(),
            "forms": {series: form for one in locals_ if one.name == "ets" for series, form in one.forms.items()},
            "orders": {series: form for one in locals_ if one.name == "arima" for series, form in one.forms.items()},
            "effects": {one.name: one.effects.to_dict() for one in outer if isinstance(one, Regressed)},
            "calibration": self.selection_.calibration.to_dict(),
            "selection": {
                **self.about_,
                "notes": list(self.selection_.notes),
                "leaderboard": _untimed(self.about_["leaderboard"]),
            },
            **(extra or {}),
        }
        weights = dict(learnt.model.model.state_dict()) if learnt else {}
        pretrained = next((one for one in members if isinstance(one, Pretrained)), None)
        if pretrained is not None:  # kept with the forecaster: a later version may come with another
            weights |= {_ZERO + name: tensor for name, tensor in pretrained.network.state_dict().items()}
            config["forecaster"]["zero"] = pretrained.network.config.to_dict()
        return save_bundle(folder, weights or {"none": torch.zeros(1)}, config, self.card())

    def card(self) -> str:
        """What the forecaster is, in a few lines of Markdown."""
        about = f"Forecasts {self.task_.horizon} rows of step {self.frequency_}, season {self.task_.season}."
        rows = [[row[name] for name in ("method", "mase", "smape", "crps")] for row in self.about_["leaderboard"]]
        sections = {
            "What to expect": "\n".join(f"* {note}" for note in self.selection_.notes),
            "On past rows": markdown_table(("method", "MASE", "sMAPE", "CRPS"), rows) if rows else "",
            "Command": f"    {recorded_command()}",
            "Versions": versions_line(versions()),
        }
        return model_card(f"Forecaster: {self.selection_.name}", about, sections)

    @classmethod
    def load(cls, folder: str | Path) -> Forecaster:
        """Reads a bundle, or the run folder that holds one.

        Raises:
            UserError: it is no forecaster, or damaged.
        """
        bundle = load_bundle(folder)
        found = bundle.config.get("forecaster")
        if bundle.config.get("kind") != BUNDLE_KIND or not isinstance(found, dict):
            raise UserError(
                "this is no forecaster of `tsmamba fit`", path=bundle.path, found=bundle.config.get("kind"),
                accepted=BUNDLE_KIND,
            )  # fmt: skip
        try:
            return cls._from(bundle, found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the forecaster's description cannot be read ({error})", path=bundle.path) from None

    @classmethod
    def _from(cls, bundle: Bundle, found: Mapping[str, Any]) -> Forecaster:
        parameters = {**found["parameters"], "levels": tuple(found["parameters"]["levels"])}
        task = Task(**{**found["task"], "levels": tuple(found["task"]["levels"])})
        forms = {
            "ets": {name: _form(form) for name, form in found["forms"].items()}, "arima": found.get("orders", {}),
        }  # fmt: skip
        own = {series: tuple(names) for series, names in found.get("own", {}).items()}
        fits: dict[str, FittedMethod] = {}
        for name in dict.fromkeys(name for names in (found["members"], *own.values()) for name in names):
            plain = name.removesuffix("_x")
            inner: FittedMethod
            if plain in LOCAL:
                inner = Local(plain, task, forms.get(plain, {}))
            elif plain in PRETRAINED:
                inner = Pretrained(plain, task, _pretrained(bundle, found["zero"]))
            else:
                inner = Learned(plain, task, FittedModel.from_bundle(_without_zero(bundle)))
            fits[name] = Regressed(Effects.from_dict(found["effects"][name]), inner) if reads_ahead(name) else inner
        method = assembled(fits, found["members"], own, task.season)
        forecaster = cls(**parameters)
        forecaster.task_, forecaster.frame_ = task, None
        notes = tuple(found["selection"]["notes"])
        calibration = Calibration.from_dict(found["calibration"])
        forecaster.selection_ = Selection(tuple(found["members"]), method, calibration, notes=notes, own=own)
        forecaster.frequency_, forecaster.about_ = found["frequency"], found["selection"]
        forecaster.source_ = Source.from_dict(found["source"])
        return forecaster

    def _panel(self, frame: SeriesFrame, horizon: int) -> Panel:
        return panel_of(with_holidays(frame, self.holidays, horizon))

    def _task(self, frame: SeriesFrame, panel: Panel) -> Task:
        levels = tuple(float(level) for level in self.levels)
        if not levels or list(levels) != sorted(set(levels)) or not 0 < levels[0] <= levels[-1] < 1:
            raise UserError("the levels must be ascending numbers between 0 and 1", found=levels)
        season = self.season or choose_season([one.values for one in panel.series], frame.frequency.seasonal_periods)
        horizon = self.horizon if self.horizon is not None else default_horizon(frame, season)
        if horizon < 1:
            raise UserError("the horizon must be at least 1 row", found=horizon)
        return Task(horizon, season, levels, self.seed, self.max_time, self.device, dict(self.settings or {}))

    def _longer(self, horizon: int) -> Forecaster:
        """A forecaster of the same series and parameters with a longer horizon."""
        if self.frame_ is None:
            raise UserError(
                "the forecaster was fitted for a shorter horizon", found=horizon,
                accepted=f"up to {self.task_.horizon}", fix="fit it again with this horizon",
            )  # fmt: skip
        return type(self)(**{**self.get_params(), "horizon": horizon}).fit(self.frame_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "selection_"):
            raise UserError("this forecaster was not fitted", fix="call fit first")


def _form(found: str | Mapping[str, str]) -> str:
    """A form of exponential smoothing; earlier versions kept it in words, with additive errors."""
    if isinstance(found, str):
        return found
    trends, seasons = {"none": "N", "linear": "A", "damped": "Ad"}, {"none": "N", "add": "A", "mul": "M"}
    return "A" + trends[found["trend"]] + seasons[found["seasonal"]]


def _pretrained(bundle: Bundle, shape: Mapping[str, Any]) -> ZeroNetwork:
    """The pre-trained network that was kept with a forecaster."""
    network = ZeroNetwork(ZeroConfig(**shape))
    own = {name.removeprefix(_ZERO): tensor for name, tensor in bundle.state.items() if name.startswith(_ZERO)}
    replace(bundle, state=own).check(network.state_dict())
    network.load_state_dict(own)
    return network.eval()


def _without_zero(bundle: Bundle) -> Bundle:
    return replace(bundle, state={name: one for name, one in bundle.state.items() if not name.startswith(_ZERO)})


def _untimed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A leaderboard without seconds, so that the same fit gives the same bundle."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def _as_frame(
    frame: pd.DataFrame | SeriesFrame, options: ReadOptions, future: pd.DataFrame | None, static: pd.DataFrame | None
) -> SeriesFrame:
    if isinstance(frame, SeriesFrame):
        return frame
    return frame_of(frame, options, future=future, static=static)
