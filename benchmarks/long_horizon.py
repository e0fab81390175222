"""Forecasters on long-horizon data sets by the exact protocol, some seeds each, beside the published figures.

    python -m benchmarks.long_horizon --name etth1 --data ETTh1.csv [--only MODEL]... [--horizon H]... [--seeds 3]
        [--results FOLDER]

Beside `auto` stand, always, its ridge alone (`network off`) and the same with a linear map in its Mamba's place
(`backbone = identity`). Everything is chosen on the validation rows; the test rows are scored once a seed. Each run has
a process of its own, whose time and memory are its, and is written as soon as it is there: what was measured is not
measured again. Without a file there is nothing to do; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, load_results, print_table, save_results
from mamba_data_prep.provenance import fingerprint
from tsmamba.benchmark.long_horizon import run_benchmark
from tsmamba.benchmark.published import HORIZONS, published_rows
from tsmamba.fitting.residual import IDENTITY, MAMBA, OFF


@dataclass(frozen=True)
class DataSet:
    """A data set: its protocol's name, its horizons and the lookback that is customary, None for each model's own."""

    protocol: str
    horizons: tuple[int, ...] = HORIZONS
    lookback: int | None = None


DATA_SETS = {
    "etth1": DataSet("etth1"),
    "etth2": DataSet("etth2"),
    "exchange": DataSet("custom"),
    "illness": DataSet("custom", (24, 36, 48, 60), 36),
}
CASES: dict[str, dict[str, Any]] = {
    "auto": {"model": "auto"},
    "ridge": {"model": "ridge"},
    "tsmamba": {"model": "tsmamba"},
    "smamba, lookback 512": {"model": "smamba", "lookback": 512},
    "auto, lookback 96": {"model": "auto", "lookback": 96},
    "ridge, lookback 96": {"model": "ridge", "lookback": 96},
    "smamba": {"model": "smamba"},
}
ROWS = [
    f"{case}, {row}" if row else case
    for case, setting in CASES.items()
    for row in (("", OFF, IDENTITY, MAMBA) if setting["model"] == "auto" else ("",))
]
"""Every row of the tables: of `auto` those of its ablation too."""


def main() -> None:
    """Fits and scores what is not in the results yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=DATA_SETS, default="etth1")
    parser.add_argument("--data", type=Path, help="its CSV")
    parser.add_argument("--only", action="append", choices=CASES)
    parser.add_argument("--horizon", type=int, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of NAME.json")
    options = parser.parse_args()
    if options.data is None:
        print("benchmarks.long_horizon: nothing to do without --data FILE")
        return
    name, folder = options.name, options.results
    wanted = [
        (case, horizon, seed)
        for horizon in options.horizon or DATA_SETS[name].horizons
        for seed in range(options.seeds)
        for case in options.only or _cases(name)
        if seed == 0 or CASES[case]["model"] != "ridge"  # nothing in a ridge is drawn at random
    ]
    for case, horizon, seed in wanted:
        if any((run["model"], run["horizon"], run["seed"]) == (case, horizon, seed) for run in _runs(name, folder)):
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            _keep(pool.submit(measure, name, case, horizon, seed, options.data).result(), name, options.data, folder)
    if runs := _runs(name, folder):
        print_table(f"{name}, MSE/MAE", summary(runs, DATA_SETS[name].horizons))
        print_table(f"{name}, costs", costs(runs, DATA_SETS[name].horizons))


def _cases(name: str) -> list[str]:
    """The cases that make sense: where one lookback is customary, each model stands there once."""
    return [case for case, setting in CASES.items() if DATA_SETS[name].lookback is None or "lookback" not in setting]


def measure(name: str, case: str, horizon: int, seed: int, data: Path) -> list[dict[str, Any]]:
    """One seed of a case, on one thread: its row, and of `auto` those of its ablation."""
    torch.set_num_threads(1)
    start = time.process_time()
    data_set = DATA_SETS[name]
    settings = {"lookback": data_set.lookback, **CASES[case]}
    found = run_benchmark(data_set.protocol, data, horizon, seeds=1, first_seed=seed, beside=False, **settings)
    cost = {
        "core_minutes": round((time.process_time() - start) / 60, 2), "peak_gb": found["peak_memory_gb"],
    }  # fmt: skip
    rows = [{**_record(case, horizon, run), **cost} for run in found["seeds"]]
    if rows and "mamba_saves" in found:
        rows[0] |= {"network": found["seeds"][0]["chosen"]["network"], "mamba_saves": found["mamba_saves"]}
    return [*rows, *(_record(f"{case}, {run['model']}", horizon, run) for run in found.get("ablation_seeds", ()))]


def _record(model: str, horizon: int, run: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model, "horizon": horizon, "seed": run["seed"], "lookback": run["lookback"],
        "windows": run["test_windows"], "mse": round(run["mse"], 4), "mae": round(run["mae"], 4),
        "covers_80": round(run["coverage"]["80"], 3), "covers_95": round(run["coverage"]["95"], 3),
        "drop_last_32_mse": round(run["drop_last"]["32"][0], 4),
    }  # fmt: skip


def _runs(name: str, folder: Path) -> list[dict[str, Any]]:
    return load_results(name, folder).get("runs", [])


def _keep(found: list[dict[str, Any]], name: str, data: Path, folder: Path) -> None:
    runs = sorted(
        [*_runs(name, folder), *found], key=lambda one: (ROWS.index(one["model"]), one["horizon"], one["seed"])
    )
    windows = {str(run["horizon"]): run["windows"] for run in runs}
    horizons = DATA_SETS[name].horizons
    tables = {
        "table": [*summary(runs, horizons), *_published(name)], "mamba": savings(runs), "costs": costs(runs, horizons)
    }  # fmt: skip
    about = {"data": {"name": data.name, **fingerprint(data).to_dict()}, "test_windows": windows}
    seeds = sorted({run["seed"] for run in runs})
    save_results(name, {**about, **tables, "runs": runs}, folder, data=[data], seeds=seeds)


def summary(runs: Sequence[dict[str, Any]], horizons: Sequence[int]) -> list[dict[str, Any]]:
    """MSE/MAE of each row at each horizon: the mean over seeds, and their deviation."""
    rows = []
    for name in ROWS:
        mine = [run for run in runs if run["model"] == name]
        cells = {f"H={horizon}": _cell([run for run in mine if run["horizon"] == horizon]) for horizon in horizons}
        if mine:
            lookbacks = ", ".join(sorted({str(run["lookback"]) for run in mine}))
            label = ", ".join(part for part in name.split(", ") if not part.startswith("lookback"))
            rows.append({"model": f"**{label}**", "lookback": lookbacks, **cells})
    return rows


def savings(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `auto` saves of the test MSE of each row without a Mamba: paired over windows a horizon apart.

    Returns:
        One row a lookback and horizon: what each seed kept, and the mean over seeds of the saving and of its standard
        error, with the number of seeds on which it exceeds that error.
    """
    rows = []
    found = [run for run in runs if "mamba_saves" in run]
    for lookback, horizon in dict.fromkeys((run["lookback"], run["horizon"]) for run in found):
        mine = [run for run in found if (run["lookback"], run["horizon"]) == (lookback, horizon)]
        row: dict[str, Any] = {"lookback": lookback, "horizon": horizon, "kept": _counted([r["network"] for r in mine])}
        for other in mine[0]["mamba_saves"]:
            saved = [run["mamba_saves"][other] for run in mine]
            share, error = (np.mean([one[key] or 0.0 for one in saved]) for key in ("share", "standard_error"))
            row[f"saved of {other}"] = f"{share:+.2%} ± {error:.2%}" if share or error else "nothing"
            row[f"sure of {other}"] = f"{sum(one['sure'] for one in saved)} of {len(saved)}"
        rows.append(row)
    return rows


def _counted(words: Sequence[str]) -> str:
    """The different words, the commonest first, with how often each stands there where there are several."""
    counts = Counter(words).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{word} ({count})" for word, count in counts)


def costs(runs: Sequence[dict[str, Any]], horizons: Sequence[int]) -> list[dict[str, Any]]:
    """What a run takes, the raw intervals' coverage, and the error that a loader gives which drops its last batch."""
    rows = []
    for case in CASES:
        for horizon in horizons:
            found = [run for run in runs if (run["model"], run["horizon"]) == (case, horizon)]
            if found:
                rows.append({"model": case, "horizon": horizon, "seeds": len(found), **_cost(found)})
    return rows


def _cost(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean = {key: np.mean([run[key] for run in runs]) for key in ("covers_80", "covers_95", "drop_last_32_mse")}
    return {
        "minutes of one core": round(float(np.mean([run["core_minutes"] for run in runs])), 1),
        "peak GB": max(run["peak_gb"] for run in runs),
        "covers 80": f"{mean['covers_80']:.3f}", "covers 95": f"{mean['covers_95']:.3f}",
        "drop-last MSE": f"{mean['drop_last_32_mse']:.4f}",
    }  # fmt: skip


def _cell(runs: Sequence[dict[str, Any]]) -> str:
    if not runs:
        return "-"
    errors = np.array([[run["mse"], run["mae"]] for run in runs])
    text = "/".join(f"{value:.4f}" for value in errors.mean(axis=0))
    return text + (" ± " + "/".join(f"{value:.4f}" for value in errors.std(axis=0, ddof=1)) if len(runs) > 1 else "")


def _published(name: str) -> list[dict[str, Any]]:
    """The published rows, horizons side by side."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for horizon in HORIZONS:
        for row in published_rows(name, horizon):
            key = (str(row["model"]), str(row["lookback"]))
            line = found.setdefault(key, {"model": f"{key[0]} (published)", "lookback": key[1]})
            line[f"H={horizon}"] = f"{row['mse']:.3f}/{row['mae']:.3f}"
    return list(found.values())


if __name__ == "__main__":
    main()
