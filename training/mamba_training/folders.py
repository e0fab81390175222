"""What lies in the folder of a run or of a model, told from names and settings alone: torch is not imported for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mamba_configs.yaml_files import read_yaml
from mamba_data_prep.errors import UserError
from mamba_data_prep.outputs import check_output_folder
from mamba_training.ranks import is_first_process

__all__ = ["CARD", "CONFIG", "WEIGHTS", "check_run_folder", "model_folder", "read_config"]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""The files of a model's bundle."""
_URL = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}


def model_folder(path: str | Path) -> Path:
    """The folder of a model's bundle: `path` itself, or `model/` in a run folder.

    Raises:
        UserError: it is missing, an address, a file, leads out of its run, or is neither a model nor a run.
    """
    if _URL.match(str(path)):
        fix = "download the model's folder yourself and give its path"
        raise UserError("models are not read from addresses", found=str(path), accepted="a folder", fix=fix)
    folder = Path(path)
    if folder.is_file():
        kind = "a pickle can run code when it is read" if folder.suffix.lower() in _PICKLES else "this is a file"
        raise UserError(
            f"is not a model's folder: {kind}",
            path=folder,
            accepted=f"a folder with {WEIGHTS} and {CONFIG}, or a run folder",
        )
    if not folder.is_dir():
        raise UserError("there is no such model", path=folder, fix="check the spelling of the path")
    if (folder / CONFIG).exists():
        return folder
    if (folder / "model" / CONFIG).exists():
        inner = folder / "model"
        if inner.resolve().parent != folder.resolve():
            raise UserError("leads out of the run folder", path=inner)
        return inner
    if (folder / "checkpoints").is_dir():
        fix = "let the run finish (add --resume to its command); the model is written at the end"
        raise UserError("this run has written no model yet", path=folder, fix=fix)
    raise UserError(f"holds no {CONFIG}: this is neither a model nor a run folder", path=folder)


def check_run_folder(path: Path, resume: bool) -> None:
    """Refuse a folder that a run can't be made in, before anything is read.

    Of processes that train together only the first asks: when the others begin, it has already opened the folder.

    Raises:
        UserError: it is a file, may not be written to, or is not empty without `resume`.
    """
    if not is_first_process():
        return
    if path.exists() and not path.is_dir():
        raise UserError("the run folder is a file", path=path, fix="give a folder that does not exist yet")
    present = sorted(entry.name for entry in path.iterdir() if entry.name != ".lock") if path.is_dir() else []
    if present and not resume:
        raise UserError(
            "the run folder is not empty",
            path=path,
            found=", ".join(present[:5]),
            fix="add --resume to go on with that run, or choose another --out",
        )
    check_output_folder(path, marks=present, overwrite=True)


def read_config(run: str | Path) -> dict[str, Any]:
    """The settings that a run folder was made with.

    Raises:
        UserError: the folder holds no readable `config.yaml`.
    """
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise UserError("there is no config.yaml: this is not a run folder", path=run)
    return read_yaml(path).values
