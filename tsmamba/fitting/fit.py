"""From a panel to a fitted forecaster, everything chosen on rows that the fit did not see."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from mamba_data_prep.errors import Interrupted, UserError
from tsmamba.config import FitConfig, Note, load_config
from tsmamba.fitting.fitted import FittedModel
from tsmamba.fitting.held_out import (
    Plan,
    calendar_columns,
    choose_seasons,
    held_back_rows,
    lookback_candidates,
    make_plan,
)
from tsmamba.fitting.residual import (
    IDENTITY,
    MAMBA,
    OFF,
    Candidate,
    choose,
    described,
    train_candidate,
    train_candidates,
)
from tsmamba.fitting.ridge import RidgeFit, fit_ridge, refit_ridge
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
    with _folder(out) as folder:
        fit = Fit(panel, horizon, config, folder, resume, note)
        fitted = fit.packed(*fit.run())
    if out is not None:
        fitted.save(out / "model")
    return fitted


def fit_ablation(
    panel: Panel, horizon: int, config: FitConfig | None = None, *, note: Note = lambda text: None
) -> dict[str, FittedModel]:
    """Fits `auto` with and without its Mamba, on the same rows and from the same seed.

    Args:
        panel, horizon, config, note: see `fit_panel`.

    Returns:
        `auto` (what `fit_panel` gives), `network off` (its ridge alone), `backbone = identity` (a linear map in the
        Mamba's place) and `backbone = mamba`.
    """
    config = config or load_config()
    if config.model != "auto":
        raise UserError("only the model auto has an ablation", found=config.model, accepted="auto")
    with _folder(None) as folder:
        fit = Fit(panel, horizon, config, folder, False, note)
        return {name: fit.packed(*found) for name, found in fit.ablation().items()}


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
        folder: of the run.
    """

    def __init__(
        self,
        panel: Panel,
        horizon: int,
        config: FitConfig,
        folder: Path,
        resume: bool,
        note: Note,
    ) -> None:
        self.panel, self.horizon, self.config = panel, horizon, config
        self.folder, self.resume, self.note = folder, resume, note
        self.held_back = held_back_rows(panel, horizon, config)
        self.scaler = PanelScaler.fit(panel, self.held_back)
        kind = {"ridge": LinearModel, "auto": ResidualModel, **NETWORKS}[config.model]
        self.calendar = calendar_columns(panel, kind.reads_calendar, self.held_back)

    def packed(self, model: ForecastModel, report: dict[str, Any]) -> FittedModel:
        """A model with all that forecasting with it needs."""
        panel = self.panel
        names = {"past": panel.past_names, "future": panel.future_names, "static": panel.static_names}
        return FittedModel(self.config, model.shape, model.eval(), self.scaler, names, self.calendar, report)

    def run(self) -> tuple[ForecastModel, dict[str, Any]]:
        """The fitted model, and what was chosen."""
        if self.config.model == "ridge":
            return self._ridge()
        return self._residual() if self.config.model == "auto" else self._network()

    def _plan(self, lookback: int, *, together: bool = False, calendar: tuple[int, ...] = ()) -> Plan:
        windows = Windows(self.panel, self.scaler, lookback, self.horizon, together=together, calendar=calendar)
        plan = make_plan(windows, self.held_back)
        for origins, rows in ((plan.train, "before the held-out rows"), (plan.valid, "among the held-out rows")):
            if len(origins) == 0:
                raise UserError(
                    f"no window of the series has values to learn from {rows}", found=f"horizon {self.horizon}",
                    fix="shorten the horizon, give longer series, or use a naive method",
                )  # fmt: skip
        return plan

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
        """The ridge, with the network that held-out rows show to help."""
        ridge, plan, report = self._ridge_and_plan()
        if self.config.network.backbone == "off":
            model = ResidualModel(self._shape(plan.windows), self.config.network, len(ridge.own), "identity")
            model.ridge.set(ridge.weight, ridge.own)
            model.shrinkage.zero_()
            found = {"model": "ridge", "network": "off", "mamba_helped": None, "shrinkage": 0.0}
        else:
            trained = train_candidates(self.config.network.backbone, partial(self._candidate, ridge, plan))
            kept, judged = choose(trained)
            model, found = kept.model, described(kept, judged)
        return model, {**report, **found, **self._finished(model, ridge, plan)}

    def ablation(self) -> dict[str, tuple[ForecastModel, dict[str, Any]]]:
        """What `auto` takes, and beside it the ridge alone and both networks; see `fit_ablation`."""
        ridge, plan, report = self._ridge_and_plan()
        found = {backbone: self._candidate(ridge, plan, backbone) for backbone in ("mamba", "identity")}
        kept, judged = choose(found)
        alone = copy.deepcopy(found["identity"].model)
        alone.shrinkage.zero_()
        rows: dict[str, tuple[ForecastModel, dict[str, Any]]] = {
            "auto": (kept.model, described(kept, judged)),
            OFF: (alone, {"model": "ridge", "network": "off", "shrinkage": 0.0}),
            IDENTITY: (found["identity"].model, described(found["identity"], {})),
            MAMBA: (found["mamba"].model, described(found["mamba"], {})),
        }
        models = {id(model): model for model, _ in rows.values()}  # what is taken is one of the others: finished once
        scores = {key: self._finished(model, ridge, plan) for key, model in models.items()}
        return {name: (model, {**report, **about, **scores[id(model)]}) for name, (model, about) in rows.items()}

    @cached_property
    def _seasons(self) -> tuple[int, ...]:
        return choose_seasons(self.panel, self.config, self.held_back)

    def _ridge_and_plan(self) -> tuple[RidgeFit, Plan, dict[str, Any]]:
        """The ridge on the training rows, the windows of its lookback, and what the report says of it."""
        ridge, report = self._fit_ridge(self._seasons)
        return ridge, self._plan(ridge.lookback, calendar=self.calendar), report

    def _candidate(self, ridge: RidgeFit, plan: Plan, backbone: str) -> Candidate:
        folder = self.folder if backbone == "mamba" else self.folder / backbone
        return train_candidate(
            backbone, self._shape(plan.windows), ridge, plan, self.config, folder, resume=self.resume, note=self.note
        )

    def _finished(self, model: ForecastModel, ridge: RidgeFit, plan: Plan) -> dict[str, float]:
        """Gives a residual model its quantiles, and its ridge the held-out rows; the scores are from before that."""
        scores = self._calibrate(model, plan)
        assert isinstance(model, ResidualModel)
        again = self._refitted(ridge, plan, self._seasons)
        model.ridge.set(again.weight, again.own)
        return scores

    def _network(self) -> tuple[ForecastModel, dict[str, Any]]:
        """Trains a network that stands by itself."""
        from tsmamba.fitting.training import train_network  # brings Lightning, which a ridge does without

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
