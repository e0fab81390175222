"""Studies that anyone can run again by one command, `genomamba reproduce NAME`: data in, table, plot and page out.

A study is a module here and a line in `STUDIES`; nothing else knows it by name.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, NamedTuple

from mamba_configs.errors import UserError

if TYPE_CHECKING:
    from genomamba.studies.study import Study


class Listed(NamedTuple):
    """What is known of a study before it is imported.

    Attributes:
        summary: what it measures, in a line.
        cost: what it takes by default on one core.
    """

    summary: str
    cost: str


STUDIES = {
    "brca1": Listed("single changes of BRCA1, measured and judged, under a model that was not told", "20 minutes"),
    "promoters": Listed("promoters against other sequence, over seeds, beside regressions and a small CNN", "2 hours"),
}
"""Name -> line; the module of the same name in this package holds the study as `STUDY`."""


def lines() -> str:
    """The studies, a line each."""
    width = max(map(len, STUDIES))
    return "\n".join(f"  {name:{width}}  {one.summary} ({one.cost})" for name, one in STUDIES.items())


def study_named(name: str) -> Study:
    """The study of a name.

    Raises:
        UserError: there is none.
    """
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1)
        raise UserError(
            "there is no such study", found=name, accepted=", ".join(STUDIES),
            fix=f"did you mean {near[0]}?" if near else None,
        )  # fmt: skip
    return importlib.import_module(f"genomamba.studies.{name}").STUDY
