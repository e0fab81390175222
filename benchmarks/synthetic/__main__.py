"""`python -m benchmarks.synthetic`: trains every mixer on both tasks, then writes table and picture.

Each run is kept in `results/synthetic.json` as soon as it ends, and is not run again: an interrupted benchmark goes on
where it stopped. `--again` begins anew; `--tiny` shows in a minute that everything runs, and keeps nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import torch

from benchmarks.common import RESULTS, print_table, save_results
from benchmarks.synthetic.tasks import TASKS, VOCABULARY
from benchmarks.synthetic.train import BUDGETS, MIXERS, OWN, train

NAME = "synthetic"
TINY = {"steps": 4, "batch": 2, "width": 16, "every": 2, "sequences": 4, "longest": 1024}
TITLES = {"induction": "induction heads", "copying": "selective copying"}
Runs = dict[str, dict[str, Any]]


def rows(runs: Runs, task: str) -> list[dict[str, Any]]:
    """One row a mixer and test: the accuracy in per cent at each length."""
    table = []
    for mixer in MIXERS:
        run = runs.get(f"{task} {mixer}", {"accuracy": {}})
        for test, accuracy in run["accuracy"].items():
            found = {f"{int(n):,}": None if a is None else round(100 * a, 1) for n, a in accuracy.items()}
            table.append({"mixer": mixer, **({"sign": test} if len(run["accuracy"]) > 1 else {}), **found})
    return table


def training_rows(runs: Runs) -> list[dict[str, Any]]:
    """One row a run: what its training took, and how far it came."""
    kept = ("parameters", "steps", "loss", "processor_seconds", "seconds_with_tests")
    return [
        {"task and mixer": key, **{name.replace("_", " "): run[name] for name in kept}} for key, run in runs.items()
    ]


def draw(runs: Runs) -> None:
    """Accuracy against length, one panel a task, to `results/synthetic.png`."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(TASKS), figsize=(11, 4), sharey=True, layout="constrained")
    for panel, (name, task) in zip(panels, TASKS.items(), strict=True):
        for number, (mixer, marker) in enumerate(zip(MIXERS, "os^Dv", strict=True)):
            found = runs.get(f"{name} {mixer}", {"accuracy": {}})["accuracy"].get("anywhere", {})
            points = [(int(n), 100 * a) for n, a in found.items() if a is not None]
            if points:
                panel.plot(
                    *zip(*points, strict=True), color=f"C{number}", marker=marker, markersize=5, alpha=0.8, label=mixer
                )
        panel.axvline(task.length, color="grey", linestyle=":", label="length trained at")
        panel.axhline(100 / VOCABULARY, color="grey", linestyle="--", linewidth=1, label="chance")
        panel.set(title=TITLES[name], xlabel="length", ylim=(-3, 103))
        panel.set_xscale("log", base=2)
    panels[0].set_ylabel("answers right, %")
    panels[0].legend(loc="center right")
    figure.savefig(RESULTS / f"{NAME}.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Trains and tests what is not in the results yet, and writes the tables with the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a minute's trial of all runs; nothing is kept")
    parser.add_argument("--again", action="store_true", help="forget the runs kept")
    parser.add_argument("--mixer", action="append", choices=list(MIXERS), help="only this one; may be repeated")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only this one; may be repeated")
    arguments = parser.parse_args()
    path = RESULTS / f"{NAME}.json"
    runs: Runs = {}
    if path.exists() and not (arguments.again or arguments.tiny):
        runs = json.loads(path.read_text())["runs"]
    for name in arguments.task or TASKS:
        for mixer in arguments.mixer or MIXERS:
            key = f"{name} {mixer}"
            budget = dataclasses.replace(BUDGETS[name], **(TINY if arguments.tiny else OWN.get(key, {})))
            if key not in runs:
                print(key, flush=True)
                runs[key] = train(mixer, TASKS[name], budget)
                if not arguments.tiny:
                    save_results(NAME, {"threads": torch.get_num_threads(), "runs": runs, **tables(runs)})
    for name, table in tables(runs).items():
        if table:
            print_table(name, table)
    if not arguments.tiny:
        draw(runs)


def tables(runs: Runs) -> dict[str, list[dict[str, Any]]]:
    """The rows of each task by its name, and those of all trainings."""
    return {**{name: rows(runs, name) for name in TASKS}, "training": training_rows(runs)}


if __name__ == "__main__":
    main()
