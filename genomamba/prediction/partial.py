"""What a stopped piece of work keeps: the rows so far, in a file beside the output, which the next run takes over.

A run is stopped by Ctrl-C or SIGTERM, or by a file that is refused in its middle; a mended file is another input.

`predictions.tsv` that isn't finished is `predictions.partial.tsv`, a whole file of the same format, and
`predictions.partial.tsv.json` says of which model, input and settings its rows are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genomamba.prediction.writers import ALL_FORMATS, output_format
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint, write_sidecar

_NOT_RESUMED = (".bw",)
_DECIDES_NOTHING = ("device",)
"""Settings that change no row."""


@dataclass(frozen=True)
class Kept:
    """Rows of a stopped run.

    Attributes:
        path: the file.
        rows: how many rows it holds.
        result: what the run said of them.
    """

    path: Path
    rows: int
    result: Mapping[str, Any]


def partial_path(out: Path) -> Path:
    """Where the rows of a stopped run are kept.

    Examples:
        >>> str(partial_path(Path("a/reads.tsv.gz")))
        'a/reads.partial.tsv.gz'
    """
    ending = next(e for e in sorted(ALL_FORMATS, key=len, reverse=True) if out.name.lower().endswith(e))
    return out.with_name(f"{out.name[: -len(ending)]}.partial{out.name[-len(ending) :]}")


def taken_over(out: Path, *, fasta: Path, model: Path, settings: Mapping[str, Any], overwrite: bool) -> Kept | None:
    """The rows that an earlier run of the same work left beside the output, or None where there are none.

    Args:
        out: the output.
        fasta, model, settings: of this run; the earlier run's must be the same.
        overwrite: pass over rows that are of other work; they will be replaced.

    Raises:
        UserError: there are rows that are of other work, and `overwrite` isn't set.
    """
    path = partial_path(out)
    if not path.is_file():
        return None
    problem = _difference(path, fasta, model, settings)
    if problem is None:
        return _kept(path, _sidecar(path))
    if overwrite:
        return None
    raise UserError(
        f"holds the rows of a stopped run that cannot be gone on with: {problem}", path=path,
        fix="remove or rename it, or add --overwrite to start from the beginning and replace it",
    )  # fmt: skip


def describe(
    path: Path, *, fasta: Path, model: Path, settings: Mapping[str, Any], result: Mapping[str, Any], seed: Any
) -> None:
    """Writes beside the kept rows which model, input and settings they come from."""
    write_sidecar(path, inputs=[fasta], model=model, seed=seed, extra={"settings": settings, "result": result})


def can_go_on(path: Path, fasta: Path) -> bool:
    """Whether a later run can take over such a file."""
    return str(fasta) != "-" and output_format(path) not in _NOT_RESUMED


def forget(out: Path) -> None:
    """Removes what an earlier run left, once the output is whole."""
    path = partial_path(out)
    for old in (path, path.with_name(path.name + ".json")):
        with suppress(OSError):
            old.unlink()


def _sidecar(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _kept(path: Path, side: Mapping[str, Any]) -> Kept:
    result = side["result"]
    for name in ("counts", "reasons"):
        dict(result.get(name, {}))
    return Kept(path, int(result["rows"]), result)


def _difference(path: Path, fasta: Path, model: Path, settings: Mapping[str, Any]) -> str | None:
    """What keeps these rows from being the beginning of this run's; None if nothing does."""
    if not can_go_on(path, fasta):
        return "standard input is gone" if str(fasta) == "-" else "a bigWig cannot be added to"
    side = _sidecar(path)
    try:
        of = {"it was changed since": (side["output"], path), "it is of another input": (side["inputs"][0], fasta)}
        for problem, (recorded, place) in {**of, "it is of another model": (side["model"], model)}.items():
            if {name: recorded[name] for name in ("size", "xxh3_128")} != fingerprint(place).to_dict():
                return problem
        own, theirs = (
            {name: value for name, value in one.items() if name not in _DECIDES_NOTHING}
            for one in (json.loads(json.dumps(dict(settings))), side["settings"])
        )
        _kept(path, side)
    except (LookupError, TypeError, ValueError, AttributeError):
        return f"{path.name}.json, which says what it is of, is missing or damaged"
    other = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
    return f"it was made with another {' and '.join(other)}" if other else None
