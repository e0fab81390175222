"""The study `brca1`: single changes of BRCA1 under a model that was never told of them, beside rules."""

from __future__ import annotations

from pathlib import Path

from genomamba.studies.brca1.options import Brca1Options
from genomamba.studies.study import Findings, NeededFile, Place, Study


class Brca1(Study[Brca1Options]):
    """Which single changes of BRCA1 break it, by measurement and by clinical judgement."""

    options = Brca1Options

    def files(self, options: Brca1Options) -> list[NeededFile]:
        """The stretch of the genome, and the labelled variants of the sets that are asked for."""
        needed = [
            NeededFile(Path(options.sequence), "chromosome 17 of GRCh38 around BRCA1, its bases as text or FASTA")
        ]
        if "findlay" in options.sets:
            origin = "supplementary table 1 of Findlay et al. 2018 (doi 10.1038/s41586-018-0461-z)"
            needed.append(NeededFile(Path(options.findlay), origin))
        if "clinvar" in options.sets:
            needed.append(NeededFile(Path(options.clinvar), "ClinVar's VCF of GRCh38, whole or its part of BRCA1"))
        return needed

    def run(self, options: Brca1Options, place: Place) -> Findings:
        """Scores every variant of each set once."""
        from genomamba.studies.brca1.findings import findings
        from genomamba.studies.brca1.judges import judged
        from genomamba.studies.brca1.labelled import labelled

        sets = {name: labelled(name, options, place.data) for name in options.sets}
        return findings({name: (one, judged(name, one, options, place)) for name, one in sets.items()}, options)


STUDY = Brca1()
