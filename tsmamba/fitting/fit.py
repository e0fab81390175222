"""From a panel to a fitted forecaster, everything chosen on rows that the fit did not see."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mamba_data_prep.errors import Interrupted, UserError
from tsmamba.config import FitConfig, Note, load_config
from tsmamba.fitting.fitted import FittedModel, Forecast
from tsmamba.fitting.held_out import (
    Plan,
    calendar_columns,
    choose_seasons,
    held_back_rows,
    lookback_candidates,
    make_plan,
)
from tsmamba.fitting.ridge import RidgeFit, fit_ridge, refit_ridge
from tsmamba.fitting.training import train_network
from tsmamba.networks import (
    NETWORKS,
    ForecastModel,
    LinearModel,
    ResidualModel,
    Shape,
    SMamba,
    TSMamba,
    build_model,
)
from tsmamba.panel.panel import Panel
from tsmamba.panel.scaling import PanelScaler
from tsmamba.panel.windows import Windows

__all__ = ["FittedModel", "Forecast", "fit_panel"]

DOUBTING = 2.0
"""Standard errors by which a network must be better where a ridge found nothing: there, luck is likelier."""


def fit_panel(
    panel: Panel,
    horizon: int,
    config: FitConfig | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    note: Note = lambda text: None,
) -> FittedModel:
    """Fits a forecaster.

    The last `config.valid_rows` rows of each series are held back: scales and weights are fitted on what comes before,
    and the held-back rows choose. With `config.refit` the chosen ridge is then fitted on all rows.

    Args:
        panel: the series; nothing outside it is read.
        horizon: rows to forecast.
        config: what to fit; the preset `auto` by default.
        out: the run folder, into which the bundle is written as `model/`; None keeps nothing.
        resume: go on with the run in `out`, or take its bundle if it is finished.
        note: told how far training has come.

    Returns:
        The fitted model; `report` tells what was chosen.

    Raises:
        UserError: the series are too short for the horizon, or the run folder is in the way.
        Interrupted: stopped; the run can be resumed with `out` and `resume`.
    """
    if out is not None and resume and (out / "model" / "config.json").is_file():
        return FittedModel.load(out)
    config = config or load_config()
    if horizon < 1:
        raise UserError("the horizon must be at least 1 row", found=horizon)
    held_back = held_back_rows(panel, horizon, config)
    scaler = PanelScaler.fit(panel, held_back)
    names = {"past": panel.past_names, "future": panel.future_names, "static": panel.static_names}
    with _folder(out) as folder:
        fit = Fit(panel, horizon, config, scaler, held_back, folder, resume, note)
        model, report = fit.run()
    fitted = FittedModel(config, model.shape, model.eval(), scaler, names, fit.calendar, report)
    if out is not None:
        fitted.save(out / "model")
    return fitted


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The run folder, or one that is gone afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder) / "run"
        except Interrupted:  # what its message would have one go on with is gone
            raise Interrupted("while training; nothing was left half-written") from None


class Fit:
    """One fit's inputs, and its steps.

    Args:
        panel, horizon, config, resume, note: see `fit_panel`.
        scaler: of the series.
        held_back: rows at each series' end that choose.
        folder: of the run.
    """

    def __init__(
        self,
        panel: Panel,
        horizon: int,
        config: FitConfig,
        scaler: PanelScaler,
        held_back: list[int],
        folder: Path,
        resume: bool,
        note: Note,
    ) -> None:
        self.panel, self.horizon, self.config, self.scaler = panel, horizon, config, scaler
        self.held_back, self.folder, self.resume, self.note = held_back, folder, resume, note
        kind = {"ridge": LinearModel, "auto": ResidualModel, **NETWORKS}[config.model]
        self.calendar = calendar_columns(panel, kind.reads_calendar, held_back)

    def run(self) -> tuple[ForecastModel, dict[str, Any]]:
        """The fitted model, and what was chosen."""
        if self.config.model == "ridge":
            return self._ridge()
        return self._residual() if self.config.model == "auto" else self._network()

    def _plan(self, lookback: int, *, together: bool = False, calendar: tuple[int, ...] = ()) -> Plan:
        windows = Windows(self.panel, self.scaler, lookback, self.horizon, together=together, calendar=calendar)
        return make_plan(windows, self.held_back)

    def _shape(self, windows: Windows) -> Shape:
        return Shape(
            windows.lookback,
            self.horizon,
            channels=len(windows.members[0]),
            n_past=windows.n_past,
            n_future=windows.n_future,
            n_static=windows.n_static,
            n_levels=len(self.config.levels),
        )

    def _fit_ridge(self, seasons: tuple[int, ...] | None) -> tuple[RidgeFit, dict[str, Any]]:
        lookbacks = lookback_candidates(self.panel, self.horizon, self.config, self.held_back)
        plan = self._plan(max(lookbacks))
        fit = fit_ridge(plan.windows, plan.train, plan.valid, lookbacks=lookbacks, seasons=seasons)
        report = {
            "lookback": fit.lookback, "strengths": fit.strengths, "own_strength": fit.own_strength,
            "train_windows": len(plan.train), "valid_windows": len(plan.valid), "ridge_valid_mse": fit.mse,
        }  # fmt: skip
        return fit, report

    def _refitted(self, fit: RidgeFit, plan: Plan, seasons: tuple[int, ...] | None) -> RidgeFit:
        return refit_ridge(fit, plan.windows, plan.everything(), seasons) if self.config.refit else fit

    def _ridge(self) -> tuple[ForecastModel, dict[str, Any]]:
        fit, report = self._fit_ridge(None)
        plan = self._plan(fit.lookback)
        model = LinearModel(self._shape(plan.windows))
        model.ridge.set(fit.weight, fit.own)
        scores = self._calibrate(model, plan)
        model.ridge.set(self._refitted(fit, plan, None).weight, {})
        return model, {"model": "ridge", **report, **scores}

    def _residual(self) -> tuple[ForecastModel, dict[str, Any]]:
        seasons = choose_seasons(self.panel, self.config, self.held_back)
        fit, report = self._fit_ridge(seasons)
        plan = self._plan(fit.lookback, calendar=self.calendar)
        torch.manual_seed(self.config.seed)
        model = ResidualModel(self._shape(plan.windows), self.config.network, len(fit.own))
        model.ridge.set(fit.weight, fit.own)
        self._calibrate(model, plan)
        # Where a line finds nothing, what a network finds is likelier luck.
        caution = DOUBTING if fit.like_naive else 1.0
        trained = train_network(
            model, plan, self.config, self.folder, caution=caution, resume=self.resume, note=self.note
        )
        scores = self._calibrate(model, plan)
        again = self._refitted(fit, plan, seasons)
        model.ridge.set(again.weight, again.own)
        helped = float(model.shrinkage) > 0
        return model, {
            "model": "ridge + mamba" if helped else "ridge",
            "mamba_helped": helped,
            **report,
            **trained,
            **scores,
        }

    def _network(self) -> tuple[ForecastModel, dict[str, Any]]:
        """Trains a network that stands by itself."""
        kind = NETWORKS[self.config.model]
        lookback = max(lookback_candidates(self.panel, self.horizon, self.config, self.held_back))
        together = len(self.panel) > 1 and (kind is SMamba or (kind is TSMamba and self.panel.aligned))
        if together and not self.panel.aligned:
            raise UserError(
                f"{self.config.model} reads all series together, but their times differ",
                fix="give series that begin and end together, or use the model auto",
            )
        plan = self._plan(lookback, together=together, calendar=self.calendar)
        torch.manual_seed(self.config.seed)
        model = build_model(self.config, self._shape(plan.windows))
        trained = train_network(model, plan, self.config, self.folder, resume=self.resume, note=self.note)
        scores = self._calibrate(model, plan)
        windows = {"train_windows": len(plan.train), "valid_windows": len(plan.valid)}
        return model, {"model": self.config.model, "lookback": lookback, **windows, **trained, **scores}

    @torch.no_grad()
    def _calibrate(self, model: ForecastModel, plan: Plan) -> dict[str, float]:
        """Takes the quantiles' offsets from the held-back rows; gives the scores there."""
        model.eval()
        errors = []
        for _, batch in plan.windows.batches(plan.choosing(), 1024):
            output = model(batch)
            error = (batch.y - output.point).masked_fill(~batch.known, float("nan"))
            spread = torch.ones_like(error)
            if isinstance(model, ResidualModel):
                spread = model.parts(batch)[2].exp()
            errors.append(torch.stack([error, error / spread]).flatten(1, 2))
        error, scaled = torch.cat(errors, dim=1)
        model.set_offsets(scaled, self.config.levels)
        return {"valid_mse": float(error.square().nanmean()), "valid_mae": float(error.abs().nanmean())}
