"""A session that IGV opens: the genome that was read, and the track that was written beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome

SHOWN: Final = (".bed", ".bed.gz", ".gff3", ".gff3.gz", ".bw", ".bedgraph", ".bedgraph.gz")
"""Outputs that are tracks."""
_GZIP: Final = b"\x1f\x8b"


def check_session(session: Path, fasta: Path, track: Path) -> None:
    """Refuses a session of what IGV cannot show.

    Raises:
        UserError: the output is no track, or IGV cannot read the genome.
    """
    if not track.name.lower().endswith(SHOWN):
        raise UserError("--igv shows a track, and the output is a table", path=track, accepted=" ".join(SHOWN))
    if str(fasta) == "-" or not fasta.is_file():
        raise UserError("--igv needs a genome in a file", path=fasta)
    with fasta.open("rb") as file:
        beginning = file.read(2)
    indexed = all(fasta.with_name(fasta.name + ending).exists() for ending in (".fai", ".gzi"))
    if beginning.startswith(_GZIP) and not indexed:
        raise UserError(
            "a genome for IGV is plain FASTA, or bgzip with its indexes", path=fasta,
            fix="gunzip it, or bgzip it and run samtools faidx on it",
        )  # fmt: skip
    if not beginning.startswith((_GZIP, b">", b";", b"\xef\xbb")):
        raise UserError("a genome for IGV is FASTA, and this is none", path=fasta, fix="leave --igv out")


def write_session(session: Path, fasta: Path, track: Path) -> None:
    """Writes the session, with paths as seen from its folder, and the genome's index beside it if there is none.

    Args:
        session: an `.xml`.
        fasta: the genome.
        track: what was written.

    Raises:
        UserError: the genome has irregular lines, which no index describes.
    """
    index = fasta.with_name(fasta.name + ".fai")
    if not index.exists():
        genome = Genome.open(fasta)
        if genome.bases != genome.path:
            raise UserError("the lines of this file are irregular, and IGV cannot index it", path=fasta,
                            fix="rewrite it, for example with seqkit seq")  # fmt: skip
        with atomic_write(index) as file:
            file.write(genome.fai())
    folder = session.resolve().parent
    root = ElementTree.Element(
        "Session", genome=_seen(fasta, folder), hasGeneTrack="false", hasSequenceTrack="true", locus="All", version="8"
    )
    resources = ElementTree.SubElement(root, "Resources")
    ElementTree.SubElement(resources, "Resource", path=_seen(track, folder))
    ElementTree.indent(root)
    with atomic_write(session) as file:
        file.write('<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n')
        file.write(ElementTree.tostring(root, encoding="unicode") + "\n")


def _seen(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder)).as_posix()
