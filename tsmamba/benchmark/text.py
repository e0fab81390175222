"""A benchmark's outcome as a table for people, with a word on whether Mamba helped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table_of(result: Mapping[str, Any]) -> str:
    """The rows of this run, those beside them and the published ones; `result` is that of `run_benchmark`."""
    ours = result["summary"]
    spread = (
        f"{ours['seeds']} seeds, sd {ours['mse_sd']:.4f}/{ours['mae_sd']:.4f}" if ours["mse_sd"] is not None else ""
    )
    lines = [
        f"{result['benchmark']} ({result['data']}), horizon {result['horizon']}, {result['channels']} channels, "
        f"all {result['test_windows']:,} test windows",
        "",
        f"{'model':24} {'lookback':>8} {'MSE':>8} {'MAE':>8}",
        _line(ours, "this run  " + spread),
        *(_line(row, "this run") for row in result.get("ablation", ())),
        *(_line(row, "this run") for row in result["beside"]),
        *(_line(row, "published") for row in result["published"]),
    ]
    first = result["seeds"][0]
    for size, (mse, mae) in first["drop_last"].items():
        lines.append(
            _line({"model": f"drop-last, batch {size}", "lookback": "", "mse": mse, "mae": mae}, "not comparable")
        )
    lines += _verdict(result.get("mamba_saves", {}))
    return "\n".join(lines)


def _verdict(saves: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whether Mamba helped: more than a standard error, over the ridge alone and over a linear map in its place."""
    if not saves:
        return []
    parts = []
    for name, one in saves.items():
        error = "unknown" if one["standard_error"] is None else f"{one['standard_error']:.2%}"
        parts.append(f"{one['share']:+.2%} against {name} (standard error {error}, {one['stretches']} stretches)")
    word = "helped" if all(one["sure"] for one in saves.values()) else "did not surely help"
    return ["", f"Mamba {word} on the test rows; of the MSE it saved {', '.join(parts)}"]


def _line(row: dict[str, Any], remark: str) -> str:
    return f"{row['model']:24} {row['lookback']!s:>8} {row['mse']:8.4f} {row['mae']:8.4f}  {remark}"
