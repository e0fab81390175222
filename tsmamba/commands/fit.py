"""`tsmamba fit`: a forecaster in a run folder, for later forecasts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import Interrupted
from mamba_data_prep.provenance import fingerprint, recorded_command
from mamba_training.folders import read_config
from mamba_training.run_folder import RunFolder
from tsmamba.commands.asked import Asked, asked
from tsmamba.commands.checks import check_fit
from tsmamba.commands.reading import read_as_told
from tsmamba.commands.terminal import shown_progress
from tsmamba.forecaster import Forecaster
from tsmamba.output.page import write_page
from tsmamba.panel.tables import forecast_table


def run_fit(
    *,
    csv: Path,
    reading: Mapping[str, Any],
    out: Path,
    horizon: int | None = None,
    holidays: str | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Fits a forecaster and keeps it as `out/model`, with `config.yaml`, `report.json` and `report.html` beside it.

    A run that was stopped goes on with `resume`, from the models that were trained and the last checkpoint of the one
    that was not; whatever is not said again is as the run was started. A run that is finished is left as it is.

    Args:
        csv, reading, horizon, holidays, quiet, options: see `tsmamba.commands.forecast.run_forecast`.
        out: the run folder.
        resume: go on with the run there.

    Raises:
        UserError: something about the file or the folder, or the run was made with other settings.
        Interrupted: by Ctrl-C; the run can be resumed.
    """
    check_fit(csv=csv, reading=reading, out=out, resume=resume)
    settings = _settings(csv, reading, out, horizon, holidays, resume, options)
    folder = RunFolder(out)
    folder.open(settings, resume=resume, may_change=("csv", "device"), note=lambda text: None)
    try:
        if not (resume and (out / "model" / "config.json").is_file()):
            _fit(csv, out, settings, quiet)
    except KeyboardInterrupt as error:
        by = error.args[0] if error.args else "the keyboard"
        again = recorded_command("--resume")
        raise Interrupted(f"by {by}; what was trained is kept\n  go on:    {again}") from None
    finally:
        folder.close()
    forecaster = Forecaster.load(out)
    about = forecaster.about_
    lines = [
        f"{out}: {about['method']}, {forecaster.task_.horizon:,} rows of step {forecaster.frequency_}, "
        f"season {forecaster.task_.season}",
        *about["notes"],
    ]
    return {"run": str(out), "horizon": forecaster.task_.horizon, **about, "text": "\n".join(lines)}


def _settings(
    csv: Path,
    reading: Mapping[str, Any],
    out: Path,
    horizon: int | None,
    holidays: str | None,
    resume: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that decides the fit, as the run folder records it."""
    wanted = asked(**options)
    settings = {
        "csv": str(csv), "input": fingerprint(csv).to_dict(), "reading": dict(reading), "horizon": horizon,
        "method": wanted.method, "levels": list(wanted.levels), "seed": wanted.seed, "max_time": wanted.max_time,
        "device": wanted.device, "holidays": holidays, "settings": dict(wanted.settings),
        "compare": wanted.compare,
    }  # fmt: skip
    if not resume or not (out / "config.yaml").is_file():
        return settings
    recorded = {"settings": {}, **read_config(out)}
    said = {name for name, value in options.items() if value not in (None, ())}
    said |= {"method", "settings"} if said & {"config", "overrides"} else set()
    said |= {name for name, value in (("horizon", horizon), ("holidays", holidays)) if value is not None}
    said |= {"reading"} if any(value not in (None, ()) for value in reading.values()) else set()
    said |= {"csv", "input"}
    return {name: value if name in said else recorded.get(name, value) for name, value in settings.items()}


def _fit(csv: Path, out: Path, settings: Mapping[str, Any], quiet: bool) -> None:
    wanted = Asked(
        settings["method"], tuple(settings["levels"]), settings["seed"], settings["max_time"], settings["device"],
        settings["settings"], settings["compare"],
    )  # fmt: skip
    with shown_progress(quiet) as note:
        frame = read_as_told(csv, settings["reading"])
        forecaster = Forecaster(
            settings["horizon"], wanted.method, holidays=settings["holidays"], **wanted.parameters()
        ).fit(frame, note=note, folder=out / "training")
        note("writing")
    forecast = forecaster.forecast(frame)
    title = f"{csv.name}: {forecaster.selection_.name}"
    write_page(out / "report.html", title, frame, forecast, forecaster, forecast_table(forecast, frame))
    with atomic_write(out / "report.json") as file:
        json.dump({**forecaster.about_, "ingest": frame.report.to_dict()}, file, indent=2)
        file.write("\n")
    frame.options.save(out / "reading.yaml")
    forecaster.save(out / "model", {"input": settings["input"]})
