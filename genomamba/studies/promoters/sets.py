"""Sets of labelled promoters, and the settings of the study of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mamba_configs.settings import Real, Section, Whole
from mamba_data_prep.errors import UserError


@dataclass(frozen=True)
class PromoterSet:
    """Labelled promoters and other sequences.

    Attributes:
        task: of `genomamba finetune`.
        inputs: its files below the folder of data; those of an annotation are made into start sites with strands.
        origin: where the files can be had.
        about: what is told from what, a sentence.
    """

    task: str
    inputs: Mapping[str, str]
    origin: str
    about: str


_GUE = "the benchmark GUE of DNABERT-2 (Zhou et al. 2023), with the columns sequence and label"
_TSS = "the RefSeq annotation of hg19: BED files of start sites and of genes"
SETS = {
    "human-tata": PromoterSet(
        "table",
        {split: f"promoters/GUE/prom_300_tata/{name}.csv.gz" for split, name in
         (("table", "train"), ("valid", "dev"), ("test", "test"))},
        _GUE,
        "human promoters with a TATA box, 300 bases, against natural DNA",
    ),
    "human-core": PromoterSet(
        "table",
        {"table": "promoters/GUE/prom_core_all/train.csv.gz", "test": "promoters/GUE/prom_core_all/dev.csv.gz"},
        _GUE,
        "human core promoters, 70 bases; most negatives are pieces of positives in another order, not natural DNA",
    ),
    "mouse-tata": PromoterSet(
        "promoter",
        {"positive": "promoters/CNNProm/Mouse_tata.fa.gz", "negative": "promoters/CNNProm/Mouse_nonprom.fa.gz"},
        "the data of CNNProm (Umarov and Solovyev 2016)",
        "mouse promoters with a TATA box, 251 bases, against pieces of genes behind their first exons",
    ),
    "chr20-tss": PromoterSet(
        "promoter",
        {"fasta": "human_grch37/hs37d5_chr20.fa.gz", "sites": "annotation/RefSeqTSS.hg19.bed.gz",
         "genes": "annotation/RefSeqGene.hg19.bed.gz"},
        f"chromosome 20 of GRCh37; {_TSS}",
        "300 bases around RefSeq start sites of chromosome 20 against stretches away from all, split by sections",
    ),
}  # fmt: skip
_SPLITS = {"table": ("train",), "valid": ("dev", "valid"), "test": ("test",)}


class PromoterOptions(Section):
    """What the study computes."""

    sets: tuple[str, ...] = Field(
        default=("human-tata", "human-core"), min_length=1,
        description=f"a list of {', '.join(SETS)}, or folders with train.csv and test.csv",
    )  # fmt: skip
    seeds: Whole = Field(default=3, ge=1, le=100, description="a whole number of fits")
    minutes: Real = Field(default=8, gt=0, description="a number of minutes for each fit")
    steps: Whole | None = Field(default=None, ge=1, description="a whole number of steps for each fit, or null")
    model: str | None = Field(default="human-1.4m", description="the model whose frozen features are tried, or null")


def set_named(name: str) -> PromoterSet:
    """One of `SETS`, or the tables of somebody's own folder.

    Raises:
        UserError: there is no such set and no such folder.
    """
    if name in SETS:
        return SETS[name]
    folder = Path(name).absolute()
    found = {
        split: str(path) for split, names in _SPLITS.items() for stem in names for ending in ("csv", "tsv")
        for path in (folder / f"{stem}.{ending}", folder / f"{stem}.{ending}.gz") if path.is_file()
    }  # fmt: skip
    if "table" not in found:
        raise UserError(
            "there is no such set of promoters", found=name,
            accepted=f"{', '.join(SETS)}, or a folder with train.csv and test.csv (also dev.csv, .tsv, .gz)",
        )  # fmt: skip
    return PromoterSet("table", found, "your own", "tables of one's own")
