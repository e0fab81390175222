"""Modules are found by the names that earlier releases documented."""

import importlib

import pytest

FORMER = [
    ("mamba_data_prep.genome", "mamba_data_prep.genomes.genome"),
    ("mamba_data_prep.splits", "mamba_data_prep.genomes.splits"),
    ("mamba_data_prep.audit", "mamba_data_prep.genomes.audit"),
    ("mamba_data_prep.dataset", "mamba_data_prep.genomes.dataset"),
    ("mamba_data_prep.loader", "mamba_data_prep.genomes.loader"),
    ("mamba_kernels.convert", "mamba_kernels.compat.transformers"),
    ("genomamba.model", "genomamba.language_model.model"),
    ("tsmamba.fitted", "tsmamba.fitting.fitted"),
    ("tsmamba.plots", "tsmamba.output.plots"),
]


@pytest.mark.parametrize(("former", "present"), FORMER)
def test_a_former_path_gives_the_module_itself(former: str, present: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{former} is now {present}"):
        module = importlib.import_module(former)
    assert module is importlib.import_module(present)
    assert module.__spec__ is not None
    assert module.__spec__.name == present


def test_a_name_that_never_was_is_still_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="genomics"):
        importlib.import_module("mamba_data_prep.genomics")
