"""`tsmamba pretrain`: the pre-trained forecaster, trained again on fresh synthetic series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mamba_data_prep.provenance import recorded_command, versions
from mamba_training.folders import check_run_folder, read_config
from mamba_training.model_card import model_card, versions_line
from mamba_training.run import RunResult
from tsmamba.zero.forecast import save
from tsmamba.zero.network import ZeroConfig, ZeroNetwork
from tsmamba.zero.prior import RHYTHMS
from tsmamba.zero.training import new_network, run_settings, train

_RATE = 2e-3


def run_pretrain(
    *,
    out: Path,
    max_time: str | None,
    max_steps: int | None,
    backbone: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Trains a network in the run folder `out`, or goes on with the run there, and writes its bundle.

    Args:
        out: the run folder.
        max_time, max_steps: where training ends; ten hours by default.
        backbone: `mamba`, or what it is compared with.
        seed: of the weights and of the series.
        device: auto, cpu or cuda.
        resume: go on from the last checkpoint; whatever isn't said again is as the run was started.

    Raises:
        UserError: the run folder or a setting is in the way.
        Interrupted: stopped by a signal; the run can be resumed.
    """
    check_run_folder(out, resume)
    before = read_config(out) if resume and (out / "config.yaml").is_file() else {}
    seed = int(before.get("seed", 0)) if seed is None else seed
    if max_time is None and max_steps is None:
        max_time, max_steps = (before.get(name) for name in ("max_time", "max_steps")) if before else ("10h", None)
    config = ZeroConfig(backbone=backbone or before.get("backbone", "mamba"))
    network = new_network(config, seed)
    settings = run_settings(
        out, max_steps=max_steps, max_time=max_time, seed=seed, device=device or "auto", resume=resume
    )
    recorded = {**config.to_dict(), "lr": _RATE, "seed": seed, "max_steps": max_steps, "max_time": max_time}
    result = train(network, settings, _RATE, recorded)
    about = {
        "seed": seed,
        "steps": result.step,
        "series": result.tokens,
        "hours": round(result.seconds / 3600, 2),
        "loss": result.metrics.get("val_loss"),
        "command": recorded_command(),
        "versions": versions(),
    }
    model = save(network, out / "model", {"training": about}, _card(network, about))
    return {"run": str(out), "model": str(model), **about, "text": _text(out, result)}


def _text(out: Path, result: RunResult) -> str:
    return f"{out}: {result.step:,} steps, {result.tokens:,} series, loss {result.metrics.get('val_loss', 0.0):.4f}"


def _card(network: ZeroNetwork, about: dict[str, Any]) -> str:
    n_numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    rhythms = "\n".join(f"* {one.name}: {one.share:.0%} of the batches" for one in RHYTHMS)
    return model_card(
        "Forecaster zero",
        f"Forecasts series that it has never seen: {n_numbers:,} numbers, backbone {network.config.backbone}. Reads up "
        "to 2,048 rows of any frequency and unit; gives quantiles of 64 rows at once.",
        {
            "Training data": "Synthetic series alone, drawn anew at every step (`tsmamba/zero/prior.py`): no real "
            f"series was read, so none of a benchmark can have been.\n\n{rhythms}",
            "Training": f"{about['steps']:,} steps, {about['series']:,} series, {about['hours']} hours.\n\n"
            f"```\n{about['command']}\n```",
            "Licence": "That of the package.",
            "Versions": versions_line(about["versions"]),
        },
    )
