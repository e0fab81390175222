"""`tsmamba info`: what a run, a file or a preset is, and what this installation can do."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from mamba_configs import list_presets, load_preset, preset_text
from mamba_data_prep.errors import UserError

APP = "tsmamba"


def run_info(what: str | None) -> dict[str, Any]:
    """Describes a preset, a run or bundle, a file of series, or (without a name) this installation.

    Returns:
        Plain values for programs, and under `text` for people.

    Raises:
        UserError: there is nothing of that name, or it cannot be read.
    """
    if what is None:
        return _installation()
    presets = list_presets(APP)
    if what in presets:
        return {"preset": what, "settings": load_preset(APP, what), "text": preset_text(APP, what).rstrip("\n")}
    path = Path(what).expanduser()
    if path.is_dir():
        return _model(path)
    if path.exists():
        return _file(path)
    accepted = f"a run, a model, a file of series, or a preset: {', '.join(presets)}"
    raise UserError("there is nothing of that name", found=what, accepted=accepted)


def _installation() -> dict[str, Any]:
    facts = {name: metadata.version(name) for name in ("seqmamba", "torch", "numpy", "pandas", "statsforecast")}
    facts["python"] = platform.python_version()
    presets = list_presets(APP)
    lines = [*(f"{name:11} {value}" for name, value in facts.items()), f"{'presets':11} {', '.join(presets)}"]
    return {"versions": facts, "presets": presets, "text": "\n".join(lines)}


def _model(path: Path) -> dict[str, Any]:
    from tsmamba.forecaster import Forecaster

    forecaster = Forecaster.load(path)
    about, task = forecaster.about_, forecaster.task_
    lines = [
        f"{path}: {about['method']}, forecasts {task.horizon:,} rows of step {forecaster.frequency_}, "
        f"season {task.season}, quantiles {', '.join(f'{level:g}' for level in task.levels)}",
        *about["notes"],
    ]
    lines += [f"  {row['method']:<16} MASE {row['mase']}" for row in about["leaderboard"]]
    return {
        "path": str(path),
        "horizon": task.horizon,
        "season": task.season,
        "frequency": forecaster.frequency_,
        "levels": list(task.levels),
        **about,
        "text": "\n".join(lines),
    }


def _file(path: Path) -> dict[str, Any]:
    import numpy as np

    from tsmamba.commands.reading import read_as_told

    frame = read_as_told(path, {})
    return {
        "path": str(path),
        "series": len(frame.ids),
        "rows": len(frame.frame),
        "observed": int(np.isfinite(np.asarray(frame.frame["y"], np.float64)).sum()),
        "frequency": frame.frequency.alias,
        "seasons": list(frame.frequency.seasonal_periods),
        "layout": frame.layout,
        "zone": frame.zone,
        "ids": frame.ids,
        "report": frame.report.to_dict(),
        "text": f"{len(frame.ids):,} series, {len(frame.frame):,} rows, step {frame.frequency.alias}\n"
        + frame.report.to_text(),
    }
