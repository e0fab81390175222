"""The settings of the study of BRCA1."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mamba_configs.settings import Section, Whole


class Brca1Options(Section):
    """Which variants, which models, and where the files are, below the folder of data."""

    sets: tuple[Literal["findlay", "clinvar"], ...] = Field(
        default=("findlay", "clinvar"), min_length=1, description="a list of findlay and clinvar"
    )
    models: tuple[str, ...] = Field(
        default=("human-1.4m", "human-bi-1.4m"), min_length=1,
        description="a list of language models: runs, bundles, or those that ship",
    )  # fmt: skip
    window: Whole = Field(default=512, ge=2, le=2**20, description="a whole number from 2 (bases around a variant)")
    findlay: str = Field(
        default="variants/Findlay2018_BRCA1_SGE_41586_2018_461_MOESM3_ESM.xlsx",
        description="the path of Findlay's table, .xlsx",
    )
    clinvar: str = Field(
        default="variants/clinvar_GRCh38_2026-02-26_cancer_genes.vcf.gz", description="the path of ClinVar's VCF"
    )
    sequence: str = Field(
        default="human_grch38/chr17_brca1_ext.txt.gz",
        description="the path of the bases of chromosome 17 around BRCA1, FASTA or text, also gzip",
    )
    first_base: Whole = Field(
        default=42_425_000, ge=1, description="a whole number from 1 (where the stretch begins on GRCh38, 1-based)"
    )
    reverse_complement: bool = Field(default=True, description="true or false (the file has the other strand)")
