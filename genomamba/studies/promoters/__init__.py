"""The study `promoters`: promoters against other sequence, from scratch and from a shipped model, beside baselines."""

from __future__ import annotations

from pathlib import Path

from genomamba.studies.promoters.sets import PromoterOptions, set_named
from genomamba.studies.study import Findings, NeededFile, Place, Study


class Promoters(Study[PromoterOptions]):
    """Promoters against other sequence."""

    options = PromoterOptions

    def files(self, options: PromoterOptions) -> list[NeededFile]:
        """Of the sets that are asked for."""
        return [
            NeededFile(Path(path), one.origin) for one in map(set_named, options.sets)
            for path in one.inputs.values()
        ]  # fmt: skip

    def run(self, options: PromoterOptions, place: Place) -> Findings:
        """Fits everything on each set."""
        from genomamba.studies.promoters.findings import findings
        from genomamba.studies.promoters.fits import fit_set

        sets = {Path(name).name: set_named(name) for name in options.sets}
        results = {name: fit_set(name, one, options, place) for name, one in sets.items()}
        return findings(results, {name: one.about for name, one in sets.items()}, options.minutes)


STUDY = Promoters()
