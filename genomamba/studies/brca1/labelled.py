"""Labelled single changes of BRCA1: what was measured in cells, and what clinics have judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8

from genomamba.studies.brca1.options import Brca1Options
from mamba_data_prep.bytestream import read_blocks
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes import alphabet
from mamba_data_prep.genomes.vcf import read_vcf

FROM_HG19: Final = 1_847_983
"""What is added to a position of BRCA1 on hg19 to have it on GRCh38."""
_RANKS: Final = (
    (3, ("nonsense", "stop_gained", "canonical splice", "splice_donor_variant", "splice_acceptor_variant")),
    (2, ("splice region", "splice_region_variant")),
    (1, ("missense", "missense_variant", "initiator_codon_variant", "start_lost")),
)
_HARMFUL: Final = {"Pathogenic", "Likely_pathogenic", "Pathogenic/Likely_pathogenic"}
_HARMLESS: Final = {"Benign", "Likely_benign", "Benign/Likely_benign"}


@dataclass(frozen=True)
class Change:
    """A single change.

    Attributes:
        position: on GRCh38's chromosome 17, 1-based.
        reference, alternative: bases of the forward strand.
        harmful: the label.
        consequence: what it does to the protein or its splicing, in the source's words.
        cadd: the CADD score that the source gives, or None.
    """

    position: int
    reference: str
    alternative: str
    harmful: bool
    consequence: str
    cadd: float | int | None = None

    @property
    def rank(self) -> int:
        """How harmful the consequence alone lets one expect the change to be, 0 to 3."""
        return next((rank for rank, words in _RANKS if self.consequence.lower() in words), 0)


@dataclass(frozen=True)
class Stretch:
    """Consecutive bases of chromosome 17, forward strand, the first at 1-based position `first`."""

    bases: UInt8[np.ndarray, " L"]
    first: int

    def at(self, start: int, end: int) -> UInt8[np.ndarray, " l"]:
        """The bases from 1-based `start` up to, not including, `end`.

        Raises:
            UserError: they are not all in the stretch.
        """
        if start < self.first or end > self.first + len(self.bases):
            raise UserError(
                "the stretch of chromosome 17 does not reach so far", found=f"{start:,}-{end:,}",
                accepted=f"{self.first:,}-{self.first + len(self.bases):,}", fix="--set window=N with a smaller N",
            )  # fmt: skip
        return self.bases[start - self.first : end - self.first]


def stretch(options: Brca1Options, data: Path) -> Stretch:
    """Reads the bases around BRCA1.

    Raises:
        UserError: the file cannot be read, or holds something else than bases.
    """
    path = data / options.sequence
    text = b"".join(read_blocks(path))
    if text.startswith(b">"):
        text = text.partition(b"\n")[2]
    bases = b"".join(text.split()).translate(alphabet.UPPER)
    if not bases or alphabet.INVALID in bases:
        raise UserError(
            "holds something else than bases", path=path, accepted="the bases of one stretch, FASTA or text"
        )
    found = np.frombuffer(bases, np.uint8)
    return Stretch(alphabet.reverse_complement(found) if options.reverse_complement else found, options.first_base)


def labelled(name: str, options: Brca1Options, data: Path) -> list[Change]:
    """The labelled changes of a set, in the source's order.

    Raises:
        UserError: the file has other columns, holds no such change, or its references are not the stretch's.
    """
    path = data / getattr(options, name)
    found = _findlay(path) if name == "findlay" else _clinvar(path)
    known = stretch(options, data)
    wrong = [one for one in found if known.at(one.position, one.position + 1).tobytes().decode() != one.reference]
    if wrong or not found:
        raise UserError(
            "the references are not the bases of the stretch", path=path,
            found=f"{len(wrong):,} of {len(found):,} differ" if found else "no labelled single change of BRCA1",
            fix="check --set first_base=N and reverse_complement=true|false",
        )  # fmt: skip
    return found


def _findlay(path: Path) -> list[Change]:
    import pandas as pd

    table = pd.read_excel(path, header=2)
    columns = ["position (hg19)", "reference", "alt", "func.class", "consequence", "CADD.score"]
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError("columns are missing", path=path, line=3, found=", ".join(map(str, table.columns[:8])),
                        accepted=", ".join(columns))  # fmt: skip
    rows: Sequence[tuple] = list(table[columns].itertuples(index=False, name=None))
    return [
        Change(int(position) + FROM_HG19, reference, alternative, label == "LOF", consequence, float(cadd))
        for position, reference, alternative, label, consequence, cadd in rows
    ]


def _clinvar(path: Path) -> list[Change]:
    found = []
    for record in read_vcf(path)[1]:
        if record.chrom.removeprefix("chr") != "17" or len(record.alternatives) != 1:
            continue
        info = record.text.split(b"\t", 8)[7].decode("utf-8", "replace")
        if not re.search(r"(?:^|;)GENEINFO=(?:[^;]*\|)?BRCA1:", info):
            continue
        (alternative,) = record.alternatives
        label = re.search(r"(?:^|;)CLNSIG=([^;]*)", info)
        single = len(record.reference) == len(alternative) == 1 and alternative in "ACGT"
        if not single or label is None or label[1] not in _HARMFUL | _HARMLESS:
            continue
        terms = re.findall(r"\|(\w+)", (re.search(r"(?:^|;)MC=([^;]*)", info) or ["", ""])[1])
        ranked = [Change(0, "", "", False, term) for term in terms] or [Change(0, "", "", False, "other")]
        consequence = max(ranked, key=lambda one: one.rank).consequence
        harmful = label[1] in _HARMFUL
        found.append(Change(record.position, record.reference, alternative, harmful, consequence))
    return found
