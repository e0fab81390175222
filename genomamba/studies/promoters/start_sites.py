"""Start sites with their strands, told from an annotation that keeps sites and genes in files without strands."""

from __future__ import annotations

from pathlib import Path

from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.intervals import read_bed


def write_start_sites(sites: Path, genes: Path, out: Path) -> int:
    """Writes the sites with the strand on which a gene begins there: `+` at a gene's first base, `-` at its last.

    A site where genes begin on both strands, or none, is left out.

    Args:
        sites: BED of single bases.
        genes: BED of whole genes.
        out: BED of six columns.

    Returns:
        How many sites were written.

    Raises:
        UserError: no site is the end of a gene.
    """
    first, last = set(), set()
    for gene in read_bed(genes):
        first.add((gene.name, gene.start))
        last.add((gene.name, gene.end - 1))
    found = sorted({(site.name, site.start) for site in read_bed(sites)})
    stranded = [(*at, "+" if at in first else "-") for at in found if (at in first) != (at in last)]
    if not stranded:
        raise UserError("no start site is an end of a gene", path=sites, fix=f"give the sites of the genes in {genes}")
    with atomic_write(out) as file:
        file.writelines(f"{name}\t{start}\t{start + 1}\tTSS\t0\t{strand}\n" for name, start, strand in stranded)
    return len(stranded)
