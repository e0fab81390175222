"""`python -m benchmarks.synthetic`: trains every mixer on both tasks, then writes table and picture.

Each run is kept in `results/synthetic.json` as soon as it ends, and is not run again: an interrupted benchmark goes on
where it stopped. `--again` begins anew; `--tiny` shows in a minute that everything runs, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from benchmarks.common import RESULTS, print_table, save_results
from benchmarks.synthetic.tasks import TASKS
from benchmarks.synthetic.train import MIXERS, Budget, train

NAME = "synthetic"
TINY = Budget(steps=4, batch=2, width=16, every=2, sequences=4, longest=1024)
Runs = dict[str, dict[str, Any]]


def rows(runs: Runs, task: str) -> list[dict[str, Any]]:
    """One row a mixer: what it took to train, and the accuracy in per cent at each length."""
    table = []
    for mixer in MIXERS:
        run = runs.get(f"{task} {mixer}")
        if run is not None:
            found = {f"L = {n}": None if a is None else round(100 * a, 1) for n, a in run["accuracy"].items()}
            table.append({"mixer": mixer, "steps": run["steps"], **found})
    return table


def draw(runs: Runs) -> None:
    """Accuracy against length, one panel a task, to `results/synthetic.png`."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(TASKS), figsize=(11, 4), sharey=True, layout="constrained")
    for panel, (name, task) in zip(panels, TASKS.items(), strict=True):
        for mixer in MIXERS:
            found = runs.get(f"{name} {mixer}", {}).get("accuracy", {})
            points = [(int(n), 100 * a) for n, a in found.items() if a is not None]
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", label=mixer)
        panel.axvline(task.length, color="grey", linestyle=":", label="length trained at")
        panel.set(title=name, xlabel="length", ylim=(-3, 103))
        panel.set_xscale("log", base=2)
    panels[0].set_ylabel("answers right, %")
    panels[0].legend()
    figure.savefig(RESULTS / f"{NAME}.png", dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a minute's trial of all runs; nothing is kept")
    parser.add_argument("--again", action="store_true", help="forget the runs kept")
    parser.add_argument("--mixer", action="append", choices=list(MIXERS), help="only this one; may be repeated")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only this one; may be repeated")
    arguments = parser.parse_args()
    path, budget = RESULTS / f"{NAME}.json", TINY if arguments.tiny else Budget()
    runs: Runs = {}
    if path.exists() and not (arguments.again or arguments.tiny):
        runs = json.loads(path.read_text())["runs"]
    for name in arguments.task or TASKS:
        for mixer in arguments.mixer or MIXERS:
            key = f"{name} {mixer}"
            if key not in runs:
                print(key, flush=True)
                runs[key] = train(mixer, TASKS[name], budget)
                if not arguments.tiny:
                    save_results(NAME, {"threads": torch.get_num_threads(), "runs": runs, **tables(runs)})
    for name, table in tables(runs).items():
        if table:
            print_table(f"{name}: answers right, %", table)
    if not arguments.tiny:
        draw(runs)


def tables(runs: Runs) -> dict[str, list[dict[str, Any]]]:
    """The rows of each task, by its name."""
    return {name: rows(runs, name) for name in TASKS}


if __name__ == "__main__":
    main()
