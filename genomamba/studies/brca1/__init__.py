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
        from genomamba.studies.brca1.by_model import model_scores
        from genomamba.studies.brca1.findings import Judged, findings
        from genomamba.studies.brca1.judges import judged, judged_by_heads
        from genomamba.studies.brca1.labelled import labelled, stretch

        known, sets = stretch(options, place.data), {}
        for name in options.sets:
            changes = labelled(name, options, place.data)
            models = {
                model: model_scores(name, changes, known, model, options.window, place) for model in options.models
            }
            place.say(f"{name}: heads learn from other exons")
            sets[name] = Judged(changes, judged(changes, known, models), judged_by_heads(changes, known, models))
        return findings(sets, options)


STUDY = Brca1()
