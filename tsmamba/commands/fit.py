"""`tsmamba fit`: a forecaster in a run folder, for later forecasts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import Interrupted
from mamba_data_prep.provenance import fingerprint
from mamba_training.run_folder import RunFolder
from tsmamba.commands.method_options import check_method, quantile_levels
from tsmamba.commands.reading import read_as_told
from tsmamba.commands.terminal import command_line, shown_progress
from tsmamba.forecaster import Forecaster
from tsmamba.output.page import write_page
from tsmamba.panel.tables import forecast_table


def run_fit(
    *,
    csv: Path,
    reading: Mapping[str, Any],
    out: Path,
    horizon: int | None = None,
    method: str = "auto",
    holidays: str | None = None,
    levels: Sequence[float] = (),
    max_time: str | None = None,
    device: str = "auto",
    seed: int = 0,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fits a forecaster and keeps it as `out/model`, with `config.yaml`, `report.json` and `report.html` beside it.

    A run that was stopped goes on with `resume`, from the models that were trained and the last checkpoint of the one
    that was not; a run that is finished is left as it is.

    Raises:
        UserError: something about the file or the folder, or the run was made with other settings.
        Interrupted: by Ctrl-C; the run can be resumed.
    """
    check_method(method)
    settings = {
        "csv": str(csv), "input": fingerprint(csv).to_dict(), "reading": dict(reading), "horizon": horizon,
        "method": method, "levels": list(quantile_levels(levels)), "seed": seed, "max_time": max_time, "device": device,
        "holidays": holidays,
    }  # fmt: skip
    folder = RunFolder(out)
    folder.open(settings, resume=resume, may_change=("csv", "device"), note=lambda text: None)
    try:
        if not (resume and (out / "model" / "config.json").is_file()):
            _fit(csv, reading, out, settings, quiet)
    except KeyboardInterrupt as error:
        by, again = error.args[0] if error.args else "the keyboard", command_line("--resume")
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


def _fit(csv: Path, reading: Mapping[str, Any], out: Path, settings: Mapping[str, Any], quiet: bool) -> None:
    with shown_progress(quiet) as note:
        frame = read_as_told(csv, reading)
        forecaster = Forecaster(
            settings["horizon"], settings["method"], levels=tuple(settings["levels"]), seed=settings["seed"],
            max_time=settings["max_time"], device=settings["device"], holidays=settings["holidays"],
        ).fit(frame, note=note, folder=out / "training")  # fmt: skip
        note("writing")
    forecast = forecaster.forecast(frame)
    title = f"{csv.name}: {forecaster.selection_.name}"
    write_page(out / "report.html", title, frame, forecast, forecaster, forecast_table(forecast, frame))
    with atomic_write(out / "report.json") as file:
        json.dump({**forecaster.about_, "ingest": frame.report.to_dict()}, file, indent=2)
        file.write("\n")
    frame.options.save(out / "reading.yaml")
    forecaster.save(out / "model", {"input": settings["input"]})
