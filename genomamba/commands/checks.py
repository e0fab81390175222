"""What commands ask of files and settings before the heavy libraries are loaded, so that a wrong name is told at once.

A command calls its check again when it runs, for whoever calls it from Python; asking twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genomamba.classifier.request import input_files
from genomamba.config import PretrainConfig, load_config
from genomamba.prediction.igv import check_session
from genomamba.prediction.vector_writers import POSITION_FORMATS, VECTOR_FORMATS, check_h5ad
from genomamba.prediction.writers import FORMATS, READABLE, SCORE_FORMATS
from genomamba.variants.writers import FORMATS as VARIANT_FORMATS
from mamba_data_prep.errors import UserError
from mamba_data_prep.outputs import check_input, check_output, check_output_folder
from mamba_training.folders import check_run_folder, model_folder, read_config


def pretrain_settings(
    *, out: Path, config: str | None, overrides: Sequence[str], flags: Mapping[str, Any], resume: bool
) -> PretrainConfig:
    """Everything that a run is told; with `resume`, what isn't said again is as the run was started.

    Raises:
        UserError: a setting is refused, the genome or the regions aren't there, or the folder holds something else.
    """
    check_run_folder(out, resume)
    recorded = out / "config.yaml"
    source = str(recorded) if resume and config is None and recorded.is_file() else config
    earlier = source == str(recorded) and "counts" not in read_config(out)  # of a release without counts
    settings = load_config(source, [*(["counts=null"] if earlier else []), *overrides], flags=flags)
    if settings.fasta is None:
        raise UserError("no genome is given", accepted="--fasta FILE, or fasta: FILE in the configuration")
    check_genome(Path(settings.fasta), None if settings.bed is None else Path(settings.bed))
    if settings.from_model is not None:
        model_folder(Path(settings.from_model))
    places = {
        key: str(Path(path).absolute())
        for key in ("fasta", "bed", "from_model")
        if (path := getattr(settings, key)) is not None
    }
    return settings.model_copy(update=places)


def check_classify(
    *,
    model: Path,
    fasta: Path,
    out: Path,
    overwrite: bool,
    bed: Path | None = None,
    regions: Sequence[str] = (),
    kraken_report: Path | None = None,
    report: Path | None = None,
    igv: Path | None = None,
) -> None:
    """Refuse a model or a file that isn't there, and an output that can't be written or exists.

    Raises:
        UserError: naming what is wrong.
    """
    if str(out) != "-":
        check_output(out, endings=FORMATS, inputs=(fasta, bed), overwrite=overwrite)
    check_output(kraken_report, inputs=(fasta, bed, out), overwrite=overwrite, option="--kraken-report")
    _check_report(report, out, [one for one in (fasta, bed, kraken_report) if one is not None], overwrite)
    check_genome(fasta, bed)
    check_regions(fasta, bed, regions)
    _check_session(igv, fasta, out, overwrite)
    model_folder(model)


def check_variants(*, model: Path, fasta: Path, vcf: Path, out: Path, overwrite: bool) -> None:
    """Refuse a model or files that aren't there, and an output that can't be written or exists.

    Raises:
        UserError: naming what is wrong.
    """
    if str(out) != "-":
        check_output(out, endings=VARIANT_FORMATS, inputs=(fasta, vcf), overwrite=overwrite)
    check_input(fasta, option="the genome")
    check_input(vcf, option="the VCF file")
    model_folder(model)


def check_evaluate(
    *, model: Path, table: Path | None, fasta: Path | None, classes: Sequence[str], out: Path | None, overwrite: bool,
    intervals: Path | None = None,
) -> None:  # fmt: skip
    """Refuse a model or files that aren't there, and a folder that can't be written or holds something.

    Raises:
        UserError: naming what is wrong.
    """
    genomes = fasta is not None or bool(classes)
    if (intervals is not None and (table is not None or not genomes)) or (
        intervals is None and sum((table is not None, fasta is not None, bool(classes))) != 1
    ):
        accepted = (
            "--fasta GENOME for a language model; --table FILE, --class NAME=FASTA for each class, or --intervals "
            "FOLDER with --fasta GENOME"
        )
        raise UserError("give one thing to score on", accepted=accepted)
    for path in (table, fasta, *input_files({"classes": classes, "intervals": intervals})):
        check_input(path)
    check_output_folder(out, marks=("evaluation.json",), inputs=(model, table, fasta, intervals), overwrite=overwrite)
    model_folder(model)


def check_genome(fasta: Path, bed: Path | None = None) -> None:
    """Refuse a genome or regions that aren't there.

    Raises:
        UserError: naming what is wrong.
    """
    check_input(fasta)
    check_input(bed)


def check_audit(
    *, fasta: Path, bed: Path | None, from_model: Path | None, sections: Path | None, overwrite: bool
) -> None:
    """Refuse files or a model that aren't there, and a table of sections that can't be written or exists.

    Raises:
        UserError: naming what is wrong.
    """
    check_genome(fasta, bed)
    if bed is not None and sections is not None:
        raise UserError("--bed and --sections both say how the genome is split", fix="leave one of them out")
    if sections is not None:
        check_output(sections, endings=(".bed",), inputs=(fasta,), overwrite=overwrite)
    if from_model is not None:
        model_folder(from_model)


def check_convert(*, model: Path, out: Path, overwrite: bool, step: bool = False) -> None:
    """Refuse a model that isn't there, and an output that can't be written or holds something.

    Raises:
        UserError: naming what is wrong.
    """
    if not (model / "config.json").is_file():
        model_folder(model)
    if out.suffix == ".onnx":
        check_onnx(out)
        check_output(out, inputs=(model,), overwrite=overwrite)
        return
    if step:
        raise UserError("--step is for ONNX", path=out, fix="name a file that ends in .onnx, or leave out --step")
    check_output_folder(out, marks=("config.json",), inputs=(model,), overwrite=overwrite)


def check_onnx(path: Path) -> None:
    """Refuse to write ONNX where the packages for it are missing.

    Raises:
        UserError: naming them.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        needed = " and ".join(missing)
        raise UserError(f"writing ONNX needs the package {needed}", path=path, fix="pip install 'seqmamba[onnx]'")


def check_explain(
    *, model: Path, fasta: Path, bed: Path | None, out: Path, overwrite: bool, regions: Sequence[str] = ()
) -> None:
    """Refuse a model or files that aren't there, a folder that can't be written or holds something, and two ways.

    Raises:
        UserError: naming what is wrong.
    """
    check_genome(fasta, bed)
    check_regions(fasta, bed, regions)
    check_output_folder(out, marks=("attributions.tsv",), inputs=(model, fasta, bed), overwrite=overwrite)
    model_folder(model)


def check_generate(*, model: Path, prompt: Path | None, out: Path, overwrite: bool) -> None:
    """Refuse a model or a prompt that isn't there, and an output that can't be written or exists.

    Raises:
        UserError: naming what is wrong.
    """
    check_output(out, endings=(".fa", ".fasta", ".fa.gz", ".fasta.gz"), inputs=(prompt,), overwrite=overwrite)
    check_input(prompt)
    model_folder(model)


def check_score(
    *, model: Path, fasta: Path, out: Path, bed: Path | None, regions: Sequence[str], per: str | None, context: int,
    overwrite: bool, igv: Path | None = None,
) -> None:  # fmt: skip
    """Refuse a model or files that aren't there, an output that can't be written or exists, and what fits no regions.

    Raises:
        UserError: naming what is wrong.
    """
    if str(out) != "-":
        check_output(out, endings=SCORE_FORMATS, inputs=(fasta, bed), overwrite=overwrite)
    check_genome(fasta, bed)
    check_regions(fasta, bed, regions)
    _check_rows(bed is not None or bool(regions), per, context)
    _check_session(igv, fasta, out, overwrite)
    model_folder(model)


def check_embed(
    *, model: Path, fasta: Path, out: Path, bed: Path | None, regions: Sequence[str], per: str | None, context: int,
    overwrite: bool,
) -> None:  # fmt: skip
    """Refuse a model or files that aren't there, an output that can't be written or exists, and what fits no regions.

    Raises:
        UserError: naming what is wrong.
    """
    check_output(out, endings=VECTOR_FORMATS, inputs=(fasta, bed), overwrite=overwrite)
    check_h5ad(out)
    if per == "position" and not out.name.lower().endswith(POSITION_FORMATS):
        raise UserError(
            "a vector for each position goes into a format that is read in parts", path=out,
            accepted=" ".join(POSITION_FORMATS),
        )  # fmt: skip
    check_genome(fasta, bed)
    check_regions(fasta, bed, regions)
    _check_rows(bed is not None or bool(regions), per, context)
    model_folder(model)


def _check_rows(of_regions: bool, per: str | None, context: int) -> None:
    """Refuses rows of regions without any, rows of records beside them, and context of none."""
    if per == ("record" if of_regions else "region"):
        fix = "give --per region, or leave --per out" if of_regions else "name regions with --bed or --region"
        raise UserError(f"there is no row a {per} {'of regions' if of_regions else 'without regions'}", fix=fix)
    if context and not of_regions:
        raise UserError("--context is what lies beside regions, and none are given", fix="give --bed or --region")


def check_regions(fasta: Path, bed: Path | None, regions: Sequence[str]) -> None:
    """Refuse regions of a stream, and regions that are named in two ways.

    Raises:
        UserError: naming what is wrong.
    """
    if bed is not None and regions:
        raise UserError("--bed and --region both name regions", fix="leave one of them out")
    if (bed is not None or regions) and str(fasta) == "-":
        raise UserError("regions can't be read from standard input", fix="save it as a file first")


def check_rethreshold(
    *, table: Path, out: Path, kraken_report: Path | None, overwrite: bool, report: Path | None = None
) -> None:
    """Refuse a table that isn't there, and outputs that can't be written or exist.

    Raises:
        UserError: naming what is wrong.
    """
    check_input(table)
    if str(out) != "-":
        check_output(out, endings=[name for name in FORMATS if name != ".bw"], inputs=(table,), overwrite=overwrite)
    check_output(kraken_report, inputs=(table,), overwrite=overwrite, option="--kraken-report")
    _check_report(report, out, (table, *([] if kraken_report is None else [kraken_report])), overwrite)


def _check_report(report: Path | None, out: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuses a page that can't be written or exists, or that would tell of a table which cannot be read again."""
    if report is None:
        return
    check_output(report, endings=(".html",), inputs=(*inputs, out), overwrite=overwrite, option="--report")
    if not out.name.lower().endswith(READABLE):
        raise UserError(
            "--report reads the table again, which has to hold all probabilities", path=out,
            accepted=" ".join(READABLE),
        )  # fmt: skip


def _check_session(session: Path | None, fasta: Path, out: Path, overwrite: bool) -> None:
    """Refuses a session that can't be written or exists, or of what IGV cannot show."""
    if session is not None:
        check_output(session, endings=(".xml",), inputs=(fasta, out), overwrite=overwrite, option="--igv")
        check_session(session, fasta, out)
