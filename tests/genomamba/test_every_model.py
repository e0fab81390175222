"""Every preset, made small, and every mixer from pre-training to classification, scores and conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genomamba.commands.classify import run_classify
from genomamba.commands.convert import run_convert
from genomamba.commands.embed import run_embed
from genomamba.commands.evaluate import run_evaluate
from genomamba.commands.finetune import run_finetune
from genomamba.commands.generate import run_generate
from genomamba.commands.info import run_info
from genomamba.commands.pretrain import run_pretrain
from genomamba.config import load_config
from genomamba.language_model.model import GenomeLM
from mamba_configs import list_presets
from mamba_data_prep.errors import UserError

SMALL = [
    "model.d_model=16", "model.n_layers=2", "model.d_state=4", "data.window=64", "data.valid_bases=256",
    "data.final_bases=256", "train.tokens_per_step=128", "train.max_steps=2", "optim.warmup_steps=1",
]  # fmt: skip
COUNTED = ["counts.order=2", "counts.long_contexts=0"]
LANGUAGE_MODELS = [
    name for name in list_presets("genomamba") if name not in ("genomamba-classifier-small", "genomamba-finetune")
]
MIXERS = {
    "mamba2": ["model.pattern=[mamba2]"],
    "s4d": ["model.pattern=[s4d]"],
    "hyena": ["model.pattern=[hyena]"],
    "attention": ["model.pattern=[attention]"],
    "hybrid": ["model.pattern=[mamba, attention]"],
    "hyena, both ways": ["model.pattern=[hyena, mamba]", "model.bidirectional=add", "objective.kind=masked"],
}
IN_TRANSFORMERS = [["mamba"], ["mamba2"]]
CASES = {
    **{name: (name, ["data.stages=[]"] if name == "genomamba-hg38" else COUNTED) for name in LANGUAGE_MODELS},
    **{name: ("genomamba-tiny", ["counts=null", *more]) for name, more in MIXERS.items()},
}
QUICK = "genomamba-tiny", "hybrid", "hyena, both ways"
"""One with tables of counts, one of two mixers, one that is asked for hidden bases."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A genome, and a table of sequences of two classes."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(2)
    (folder / "genome.fa").write_text(">chr1\n" + "".join(rng.choice(list("ACGT"), 6000)) + "\n")
    lines = ["sequence,label"]
    for index in range(40):
        share = 0.4 if index % 2 else 0.1
        text = "".join(rng.choice(list("ACGT"), 60, p=[share, 0.5 - share, 0.5 - share, share]))
        lines.append(f"{text},{'rich' if index % 2 else 'poor'}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "genome.fa", folder / "table.csv"


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_model_goes_through_every_command(name: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    (genome, table), (preset, more) = files, CASES[name]
    model, classifier = tmp_path / "lm", tmp_path / "classifier"
    learnt = run_pretrain(out=model, config=preset, overrides=[*SMALL, *more], flags={"fasta": str(genome)})
    assert learnt["status"] == "finished"
    assert 1 < learnt["test"]["bits"] < 4
    flags = {"train.max_steps": 2, "data.window": 64}
    tuned = run_finetune(task="table", out=classifier, from_model=model, flags=flags, table=[str(table)])
    assert 0 <= tuned["test"]["accuracy"]["mean"] <= 1
    run_classify(model=classifier, fasta=genome, out=tmp_path / "classes.tsv")
    rows = pd.read_csv(tmp_path / "classes.tsv", sep="\t")
    assert rows["end"].tolist() == [6000]
    assert rows[["prob_poor", "prob_rich"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    for embedded in (model, classifier):
        assert run_embed(model=embedded, fasta=genome, out=tmp_path / f"{embedded.name}.npz")["rows"] == 1
        assert np.isfinite(np.load(tmp_path / f"{embedded.name}.npz")["embedding"]).all()
    if GenomeLM.from_bundle(model).objective.looks_ahead:
        assert run_generate(model=model, length=8, out=tmp_path / "new.fa")["bases"] == 8
    scored = run_evaluate(model=model, fasta=genome, split="test")
    assert scored["bits"] == pytest.approx(learnt["test"]["bits"], abs=1e-4)
    assert run_evaluate(model=classifier, table=table)["test"]["accuracy"] >= 0
    assert run_info(str(model))["text"]
    assert run_info(str(classifier))["text"]
    settings = load_config(model / "config.yaml")
    plain = settings.counts is None and settings.objective.kind == "next_base"
    if plain and list(settings.model.pattern) in IN_TRANSFORMERS:
        assert run_convert(model=model, out=tmp_path / "theirs", letters=None, window=64)["kind"] == "transformers"
    else:
        with pytest.raises(UserError, match=r"has no form in transformers|cannot be converted"):
            run_convert(model=model, out=tmp_path / "theirs", letters=None, window=64)
