"""`genomamba reproduce`: one of the studies, from files to table, plot and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genomamba.config import APP
from genomamba.studies import study_named
from genomamba.studies.study import Place, check_files
from mamba_configs.settings import Section, load_settings
from mamba_configs.yaml_files import write_yaml
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import fingerprint, recorded_command, versions
from mamba_training.folders import check_run_folder, read_config


def study_settings(
    *, name: str, data: Path | None, out: Path, overrides: Sequence[str], flags: Mapping[str, Any], resume: bool
) -> tuple[Section, Path]:
    """The settings of a study and the folder of its files; with `resume`, what isn't said again is as it was begun.

    Raises:
        UserError: there is no such study, a setting is refused, files are missing, or the folder holds something else.
    """
    one = study_named(name)
    check_run_folder(out, resume)
    recorded = read_config(out) if resume and (out / "config.yaml").is_file() else {}
    if recorded.get("study", name) != name:
        fix = f"genomamba reproduce {recorded['study']} --out {out} --resume"
        raise UserError("this folder is of another study", path=out, found=name, accepted=recorded["study"], fix=fix)
    settings = load_settings(APP, one.options, None, overrides, flags, beneath=recorded.get("settings"))
    folder = data or (Path(recorded["data"]) if recorded.get("data") else None)
    check_files(one.files(settings), folder, name)
    return settings, (folder or Path()).absolute()


def run_reproduce(
    *,
    name: str,
    out: Path,
    data: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Runs a study, or goes on with one that was stopped.

    Args:
        name: of the study.
        out: the folder of its fits, table, plot and page.
        data: the folder of the files that it reads.
        overrides: `KEY=VALUE` texts.
        flags: settings of dedicated options; None values are left out.
        resume: go on with the study in `out`; fits that are finished are kept.

    Returns:
        The tables and sentences for programs, and under `text` for people.

    Raises:
        UserError: something about the files or settings.
        Interrupted: stopped; resumable with `resume`.
    """
    from genomamba.studies.page import markdown, write_findings
    from mamba_training.progress import say

    settings, folder = study_settings(
        name=name, data=data, out=out, overrides=overrides, flags=flags or {}, resume=resume
    )
    one = study_named(name)
    out.mkdir(parents=True, exist_ok=True)
    record = {"study": name, "settings": settings.model_dump(mode="json"), "data": str(folder)}
    with atomic_write(out / "config.yaml") as file:
        file.write(write_yaml(record))
    content = {file.path.name: fingerprint(folder / file.path).xxh3_128 for file in one.files(settings)}
    findings = one.run(settings, replace(Place(folder, out, say), asked={"files": content}))
    about = {**record, "files": content, "versions": versions(), "command": recorded_command()}
    write_findings(out, findings, about)
    title, rows = next(iter(findings.tables.items()))
    text = [title, "", markdown(rows), *findings.words, f"page: {out / 'README.md'}"]
    return {"out": str(out), **about, "tables": dict(findings.tables), "words": list(findings.words),
            "text": "\n".join(text)}  # fmt: skip
