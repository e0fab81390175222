"""What `--config`, `--set` and a command's own options ask of methods, laid over each other: options come last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mamba_configs.settings import leaves, parse_override
from mamba_data_prep.errors import UserError
from tsmamba.config import LEVELS, load_config
from tsmamba.methods.names import check_method, plain_name


@dataclass(frozen=True)
class Asked:
    """What is to be fitted, and how.

    Attributes:
        method: auto or a method's name.
        levels: of the quantiles, ascending.
        seed: of whatever is drawn at random.
        max_time: at which training stops, such as "90s"; None sets no limit.
        device: auto, cpu or cuda.
        settings: of learnt methods, by dotted key; see `tsmamba.methods.methods.Task`.
        compare: whether a method that is named is compared with the baselines; auto always is.
    """

    method: str = "auto"
    levels: tuple[float, ...] = LEVELS
    seed: int = 0
    max_time: str | float | None = None
    device: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    compare: bool = False

    def parameters(self) -> dict[str, Any]:
        """All settings but the method, as the arguments of `Forecaster`."""
        return {
            "levels": self.levels, "seed": self.seed, "max_time": self.max_time, "device": self.device,
            "settings": dict(self.settings) or None, "compare": self.compare,
        }  # fmt: skip


def asked(
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    method: str | None = None,
    levels: Sequence[float] = (),
    seed: int | None = None,
    max_time: str | None = None,
    device: str | None = None,
    limit: str | None = None,
    compare: bool | None = None,
) -> Asked:
    """Lay a command's options over its configuration.

    Args:
        config: a preset's name or a YAML file; its model is the method where none is named.
        overrides: `KEY=VALUE` texts; without `config` they hold for every learnt method.
        method: auto or a method's name.
        levels: widths of intervals in percent.
        seed, max_time, device: in place of the configuration's.
        limit: `max_time` where nobody says anything of it.
        compare: see `Asked`.

    Raises:
        UserError: a setting or a name is refused, or the configuration is for another method than the one named.
    """
    settings = _settings(config, overrides)
    model = settings.get("model", "auto")
    if method is not None:
        check_method(method)
        check_fits(settings, [method])
    accelerator = settings.get("train.accelerator", "auto")
    return Asked(
        method=method or _method_of(model),
        levels=quantile_levels(levels) if levels else tuple(settings.get("levels", LEVELS)),
        seed=settings.get("seed", 0) if seed is None else seed,
        max_time=max_time or settings.get("train.max_time") or limit,
        device=device or ("cuda" if accelerator == "gpu" else str(accelerator)),
        settings=settings,
        compare=bool(compare),
    )


def check_fits(settings: Mapping[str, Any], methods: Sequence[str]) -> None:
    """Refuse a configuration for a model that none of the named methods fits.

    Raises:
        UserError: naming the method of the model.
    """
    model = settings.get("model")
    fitted = {{"mamba": "auto"}.get(plain_name(name), plain_name(name)) for name in methods}
    if model is not None and fitted and model not in fitted:
        raise UserError(
            f"the configuration is for the model {model}, which no named method fits", found=", ".join(methods),
            accepted=_method_of(model), fix="leave --method out, or give the configuration of its model",
        )  # fmt: skip


def _settings(config: str | Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted settings: all of a configuration's, or those that `--set` changes."""
    if config is not None:
        return dict(leaves(load_config(config, overrides).model_dump(mode="json")))
    changes = dict(map(parse_override, overrides))
    if "model" in changes:
        raise UserError("a model is chosen by its method", found=f"--set model={changes['model']}", fix="--method NAME")
    kept = dict(leaves(load_config(overrides=overrides).model_dump(mode="json")))
    return {key: kept[key] for key, _ in leaves(changes)}


def _method_of(model: str) -> str:
    return "auto" if model == "auto" else model


def quantile_levels(percents: Sequence[float]) -> tuple[float, ...]:
    """The quantile levels that bound central intervals of these widths, with the median."""
    if not percents:
        return LEVELS
    tails = [round((1 - percent / 100) / 2, 6) for percent in percents]
    return tuple(sorted({*tails, 0.5, *(round(1 - tail, 6) for tail in tails)}))
