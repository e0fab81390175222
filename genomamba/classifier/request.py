"""What a fine-tuning run is asked to do: task, settings, files and seeds, from options or from the run's own record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genomamba.classifier.config import DEFAULT_PRESET, PRETRAINED_PRESET, FinetuneConfig
from genomamba.classifier.tasks.interval_folders import IntervalFolder
from genomamba.config import APP, load_config
from mamba_configs.settings import load_settings
from mamba_data_prep.errors import UserError
from mamba_data_prep.outputs import check_input
from mamba_training.folders import check_run_folder, model_folder, read_config

_NEEDED = {
    "species": (("classes",),),
    "table": (("table",),),
    "promoter": (("positive", "negative"), ("fasta", "tss")),
    "intervals": (("intervals", "fasta"), ("intervals", "classes")),
}
"""The inputs of each task; where there are two pairs, either of them."""


@dataclass(frozen=True)
class Request:
    """Everything that one fine-tuning run is told.

    Attributes:
        task: species, promoter, table or intervals.
        settings: the configuration, before the data and a pre-trained model have their say.
        inputs: the task's files, as the command line names them; paths are absolute.
        from_model: bundle or run folder to start from.
        from_sha256: of that model's weights, where an earlier session of the run recorded it.
        seeds: how many models are trained.
    """

    task: str
    settings: FinetuneConfig
    inputs: Mapping[str, Any]
    from_model: Path | None = None
    from_sha256: str | None = None
    seeds: int = 1

    def files(self) -> list[Path]:
        """Every labelled file, in the order given."""
        return input_files(self.inputs)


def resolve(
    *,
    task: str,
    out: Path,
    config: str | None,
    overrides: Sequence[str],
    flags: Mapping[str, Any],
    from_model: Path | None,
    seeds: int | None,
    resume: bool,
    inputs: Mapping[str, Any],
) -> Request:
    """Everything that a run is told; with `resume`, what isn't said again is as the run was started.

    Raises:
        UserError: a setting is refused, a file or the model isn't there, or the folder holds something else.
    """
    if task not in _NEEDED:
        raise ValueError(f"task must be {', '.join(_NEEDED)}, not {task!r}")
    check_run_folder(out, resume)
    recorded = recorded_run(out) if resume else None
    if recorded is not None and recorded.get("task", task) != task:
        fix = f"genomamba finetune {recorded['task']} --out {out} --resume"
        raise UserError("this run is for another task", path=out, found=task, accepted=recorded["task"], fix=fix)
    given = _absolute({name: value for name, value in inputs.items() if value not in (None, (), [])})
    if not given and recorded is not None:
        given = {name: value for name, value in recorded["inputs"].items() if value not in (None, "", [])}
    _check_complete(task, given)
    whole = {**dict.fromkeys(inputs), **given}
    for path in input_files(whole):
        check_input(path)
    known = recorded or {}
    place = from_model or (Path(known["from_path"]) if known.get("from_path") else None)
    if from_model is not None:
        model_folder(from_model)
    elif place is not None and not place.exists():
        place = None  # the run's checkpoint holds the weights by now; a run without one is refused when it is trained
    started = place is not None or known.get("from") is not None
    several = seeds or int(known.get("seeds") or max(1, len(_seed_folders(out)) if resume else 1))
    if several > 1 and (out / "checkpoints").exists():
        raise UserError("this run was made with one seed", path=out, fix="leave --seeds out, or choose another --out")
    settings = _settings(config, overrides, flags, recorded, started)
    return Request(task, settings, whole, place, known.get("from"), several)


def input_files(inputs: Mapping[str, Any]) -> list[Path]:
    """Every labelled file that a command names, in the order given.

    Those of classes are `NAME=FASTA` texts, and those of intervals lie in a folder.

    Raises:
        UserError: a class has no name or no file, or the folder is none of labelled intervals.
    """
    found: list[Path] = []
    for name, value in inputs.items():
        for item in value if isinstance(value, list | tuple) else [value] if value is not None else []:
            if name == "intervals":
                found += IntervalFolder.open(Path(item)).paths()
            else:
                found.append(_class_file(str(item))[1] if name == "classes" else Path(item))
    return found


def recorded_run(out: Path) -> dict[str, Any] | None:
    """The record of a fine-tuning run, or of the first of several seeds in its folder; None where there is none."""
    found = [folder for folder in (out, *_seed_folders(out)) if (folder / "config.yaml").is_file()]
    return read_config(found[0]) if found else None


def _seed_folders(out: Path) -> list[Path]:
    folders = [path for path in (out / "seeds").glob("*") if path.name.isdecimal()]
    return sorted(folders, key=lambda path: int(path.name))


def _settings(
    config: str | None,
    overrides: Sequence[str],
    flags: Mapping[str, Any],
    recorded: Mapping[str, Any] | None,
    started: bool,
) -> FinetuneConfig:
    if config is None and recorded is not None:
        own = {name: recorded[name] for name in FinetuneConfig.model_fields if name in recorded}
        own["train"] = {"layers": "all", **own.get("train", {})}  # as releases did whose record does not say
        return load_settings(APP, FinetuneConfig, None, overrides, flags, beneath=own)
    default = PRETRAINED_PRESET if started else DEFAULT_PRESET
    return load_config(config, overrides, schema=FinetuneConfig, flags=flags, default=default)


def _check_complete(task: str, given: Mapping[str, Any]) -> None:
    ways = _NEEDED[task]
    if any(all(name in given for name in way) for way in ways) and not (
        task == "promoter" and {"positive", "negative"} & given.keys() and {"fasta", "tss"} & given.keys()
    ):
        return
    words = [" and ".join("--class" if name == "classes" else f"--{name}" for name in way) for way in ways]
    raise UserError(
        "it is not said what to learn from", accepted=", or ".join(words),
        fix=f"genomamba finetune {task} --help shows examples",
    )  # fmt: skip


def _absolute(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same files, named so that a resumed run finds them from another folder."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        several = isinstance(value, list | tuple)
        items = list(value) if several else [value]
        if name == "classes":
            parts = map(_class_file, map(str, items))
            items = [f"{label}={path.absolute()}" for label, path in parts]
        else:
            items = [str(Path(item).absolute()) for item in items]
        found[name] = items if several else items[0]
    return found


def _class_file(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name.strip() or not path.strip():
        raise UserError(
            "--class needs NAME=FASTA", found=text, accepted="for example --class human=human.fa.gz"
        )  # fmt: skip
    return name.strip(), Path(path)
