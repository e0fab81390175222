"""A fitted forecaster: point forecasts and quantiles of a panel in its own units, kept as a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import versions
from mamba_training.bundle import Bundle, load_bundle, save_bundle
from mamba_training.model_card import model_card, versions_line
from tsmamba.config import FitConfig, checked
from tsmamba.networks import CausalModel, Shape, build_model
from tsmamba.networks.base import ForecastModel
from tsmamba.panel.forecast import Forecast
from tsmamba.panel.panel import Panel
from tsmamba.panel.scaling import PanelScaler
from tsmamba.panel.windows import Origins, Windows

BUNDLE_KIND = "tsmamba-forecaster"
_BATCH = 256
_ROWS = 2**17
"""Rows of a batch where whole histories are read."""


@dataclass
class FittedModel:
    """A model with the scales of its series.

    Attributes:
        config: what it was fitted with.
        shape: lookback, horizon and the covariates' counts.
        model: gives forecasts in scaled units.
        scaler: of the series fitted on; others are scaled by their own history.
        names: of past, future and static covariates.
        calendar: columns of the calendar features that the model reads.
        report: what was chosen on validation, and its scores.
    """

    config: FitConfig
    shape: Shape
    model: ForecastModel
    scaler: PanelScaler
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    calendar: tuple[int, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lookback(self) -> int:
        """Rows of history that a forecast reads."""
        return self.shape.lookback

    @property
    def horizon(self) -> int:
        """Rows that a forecast gives."""
        return self.shape.horizon

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels of the quantiles, ascending."""
        return self.config.levels

    @property
    def n_parameters(self) -> int:
        """How many numbers the model has."""
        return sum(tensor.numel() for tensor in self.model.state_dict().values())

    @property
    def is_causal(self) -> bool:
        """Whether a forecast reads the whole history, row after row, rather than a window."""
        return isinstance(self.model, CausalModel)

    def predict(self, panel: Panel, steps_back: int = 0) -> Forecast:
        """Forecasts what follows the end of each series.

        Args:
            panel: series with the same covariates as those fitted on; other series may be among them.
            steps_back: forecast from so many rows before each series' end; what follows there is not read.

        Returns:
            `horizon` rows a series.

        Raises:
            UserError: the covariates are others, or a series has no observed value to go on from.
        """
        cut = panel.before(steps_back)
        if self.is_causal:
            return self.predict_after(cut, (0,))[0]
        windows = self.windows(cut)
        rows = windows.rows
        origins = Origins(np.arange(len(rows), dtype=np.int64), rows)
        empty = [one.unique_id for one in cut.series if not np.isfinite(one.values[-self.lookback :]).any()]
        if empty:
            raise UserError(
                "no value was observed in the model's window", record=empty[0], accepted=f"{self.lookback} rows"
            )
        point, quantiles = self.predict_windows(windows, origins)
        channels, steps, n_levels = point.shape[0] * point.shape[1], self.horizon, len(self.levels)
        return Forecast(
            tuple(cut.ids), self.levels, point.reshape(channels, steps), quantiles.reshape(channels, steps, n_levels)
        )

    def predict_after(self, panel: Panel, steps_back: Sequence[int]) -> list[Forecast]:
        """What a causal model forecasts from several rows of each series, which it reads once, from the first row on.

        Args:
            panel: series whose scales do not depend on where a forecast begins: those fitted on, or `(0,)` alone.
            steps_back: from how many rows before each series' end to forecast; where that is before its first row, the
                forecast is that after the first row.
        """
        panel.check_covariates(self.names)
        shape = len(steps_back), len(panel), self.horizon
        point, quantiles = np.zeros(shape), np.zeros((*shape, len(self.levels)))
        for members in _alike(panel.lengths):
            part = replace(panel, series=tuple(panel.series[number] for number in members))
            found = self._after(part, steps_back)
            point[:, members], quantiles[:, members] = found
        every = zip(point, quantiles, strict=True)
        return [Forecast(tuple(panel.ids), self.levels, *one) for one in every]

    def _after(self, panel: Panel, steps_back: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Point forecasts (K, S, H) and quantiles of series with the same number of rows."""
        model, rows = self.model.eval(), len(panel.series[0])
        if not isinstance(model, CausalModel):
            raise TypeError("only causal models forecast from every row that they read")
        windows = Windows(panel, self.scaler, rows, self.horizon, calendar=self.calendar)
        whole = Origins(np.arange(len(panel), dtype=np.int64), np.full(len(panel), rows))
        scaled = model.after(windows.batch(whole), [max(rows - back, 1) for back in steps_back])[:, 0].double()
        mean, deviation = self._units(windows, whole)
        spread = (scaled[..., None] + model.offsets) * deviation[..., None] + mean[..., None]
        return (scaled * deviation + mean).transpose(0, 1).numpy(), spread.transpose(0, 1).numpy()

    def windows(self, panel: Panel) -> Windows:
        """A panel's windows of this model's shape."""
        panel.check_covariates(self.names)
        together = self.model.reads_together
        return Windows(panel, self.scaler, self.lookback, self.horizon, together=together, calendar=self.calendar)

    @torch.no_grad()
    def predict_windows(
        self, windows: Windows, origins: Origins, *, scaled: bool = False
    ) -> tuple[Float[np.ndarray, "B M H"], Float[np.ndarray, "B M H Q"]]:
        """Forecasts from many origins.

        Args:
            windows: made by `windows`.
            origins: where the forecasts begin.
            scaled: leave the forecasts in scaled units.

        Returns:
            Point forecasts and quantiles.
        """
        self.model.eval()
        points, spreads = [], []
        for part, batch in windows.batches(origins, _BATCH):
            output = self.model(batch)
            mean, deviation = (torch.zeros(1), torch.ones(1)) if scaled else self._units(windows, part)
            points.append((output.point.double() * deviation + mean).numpy())
            spreads.append((output.quantiles.double() * deviation[..., None] + mean[..., None]).numpy())
        return np.concatenate(points), np.concatenate(spreads)

    def _units(self, windows: Windows, origins: Origins) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and deviations (B, M, 1) of the windows' series."""
        scales = [[self.scaler.scale(windows.panel.series[n]) for n in members] for members in windows.members]
        table = torch.tensor([[[one.mean, one.deviation] for one in group] for group in scales], dtype=torch.float64)
        chosen = table[origins.group]
        return chosen[..., :1], chosen[..., 1:]

    def save(self, folder: str | Path, card: str | None = None) -> Path:
        """Writes the bundle: `config.json`, `model.safetensors`, `README.md`."""
        return save_bundle(folder, self.model.state_dict(), self.describe(), card or self.card())

    def describe(self) -> dict[str, Any]:
        """Gives what the bundle's `config.json` holds."""
        return {
            "format": 1,
            "kind": BUNDLE_KIND,
            "settings": self.config.model_dump(mode="json"),
            "shape": self.shape.to_dict(),
            "model": self.model.describe(),
            "names": {kind: list(names) for kind, names in self.names.items()},
            "calendar": list(self.calendar),
            "scaler": self.scaler.to_dict(),
            "report": dict(self.report),
            "versions": versions(),
        }

    def card(self) -> str:
        """The model card in a few lines."""
        about = (
            f"Reads {self.lookback} rows, forecasts {self.horizon}, quantiles {', '.join(map(str, self.levels))}; "
            f"{len(self.scaler.series)} series, {self.n_parameters:,} numbers."
        )
        chosen = "\n".join(f"* {key}: {value}" for key, value in self.report.items())
        sections = {"Chosen on held-out rows": chosen, "Versions": versions_line(versions())}
        return model_card(f"Forecaster: {self.config.model}", about, sections)

    @classmethod
    def load(cls, folder: str | Path) -> FittedModel:
        """Reads a bundle or the run folder that holds one; runs no code from it.

        Raises:
            UserError: it is no forecaster, or damaged.
        """
        return cls.from_bundle(load_bundle(folder))

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> FittedModel:
        """The model in a bundle that was read.

        Raises:
            UserError: it is no forecaster.
        """
        found = bundle.config
        if found.get("kind") != BUNDLE_KIND:
            raise UserError("this is no forecaster", path=bundle.path, found=found.get("kind"), accepted=BUNDLE_KIND)
        try:
            config, shape = checked(found["settings"]), Shape.from_dict(found["shape"])
            model = build_model(config, shape, found["model"])
            bundle.check(model.state_dict())
            model.load_state_dict(bundle.state)
            scaler, calendar = PanelScaler.from_dict(found["scaler"]), tuple(found["calendar"])
            return cls(config, shape, model, scaler, found["names"], calendar, found["report"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the model's description cannot be read ({error})", path=bundle.path) from None


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of equal lengths, in batches."""
    for rows in sorted(set(lengths)):
        places = [place for place, length in enumerate(lengths) if length == rows]
        size = max(_ROWS // max(rows, 1), 1)
        yield from (places[first : first + size] for first in range(0, len(places), size))
