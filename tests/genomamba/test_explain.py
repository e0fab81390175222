"""Explanations: which bases decide, and what the layers remember."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pybigtools
import pytest
import torch
from click.testing import CliRunner

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.cli import cli
from genomamba.config import ModelConfig, ObjectiveConfig
from genomamba.explanation.attribution import (
    difference_from_unknown,
    gradient_x_input,
    integrated_gradients,
    mutagenesis,
)
from genomamba.explanation.pictures import strongest_stretch
from genomamba.explanation.remembered import channel_table, openness, remembered, word_table
from genomamba.explanation.targets import ClassOdds, HiddenBases, Likelihood
from genomamba.explanation.tracks import write_track
from genomamba.language_model.model import GenomeLM
from mamba_data_prep.errors import UserError
from mamba_training.bundle import save_bundle

SEQUENCE = "ACGTTGCANACCGTAGGT"
IDS = torch.from_numpy(tokens.encode(SEQUENCE))
Maker = Callable[..., SequenceClassifier]


def language_model(**shape: object) -> GenomeLM:
    torch.manual_seed(0)
    asked = ObjectiveConfig(kind="masked" if shape else "next_base")
    config = ModelConfig.model_validate({"d_model": 16, "n_layers": 2, "d_state": 4, **shape})
    model = GenomeLM(config, objective=asked).eval()
    with torch.no_grad():
        for parameter in model.embedding.parameters():
            parameter.mul_(30)
    return model


def changed(base: str, place: int) -> torch.Tensor:
    return torch.from_numpy(tokens.encode(SEQUENCE[:place] + base + SEQUENCE[place + 1 :]))


@pytest.mark.parametrize("taps", [0, 5])
def test_mutagenesis_is_the_change_of_the_log_odds(make_classifier: Maker, taps: int) -> None:
    model = make_classifier(taps=taps)
    target = ClassOdds(model, "E. coli")
    found = mutagenesis(target, IDS, bases_at_a_time=50)

    def odds(ids: torch.Tensor) -> float:
        with torch.no_grad():
            p = model(ids[None], torch.tensor([len(ids)])).double().softmax(1)[0, 1]
        return math.log2(float(p) / (1 - float(p)))

    for place, base in ((0, "C"), (9, "T"), (17, "A")):
        expected = odds(changed(base, place)) - odds(IDS)
        assert found[place, "ACGT".index(base)] == pytest.approx(expected, abs=1e-4)
    assert np.isnan(found[SEQUENCE.index("N")]).all()
    own = ["ACGT".find(base) for base in SEQUENCE]
    assert all(found[place, base] == 0 for place, base in enumerate(own) if base >= 0)


@pytest.mark.parametrize("taps", [0, 5])
def test_integrated_gradients_add_up(make_classifier: Maker, taps: int) -> None:
    target = ClassOdds(make_classifier(taps=taps), "human")
    parts = integrated_gradients(target, IDS, steps=400)
    assert np.nansum(parts) == pytest.approx(difference_from_unknown(target, IDS), abs=0.02)
    assert np.isnan(parts[SEQUENCE.index("N")])
    assert np.nanmax(np.abs(parts)) > 0.01


def test_the_gradient_is_the_slope_of_the_target() -> None:
    model = language_model()
    target = Likelihood(model)
    found = gradient_x_input(target, IDS)
    with torch.no_grad():
        vectors = model.embedding(IDS[None])[0]
        middle = model.embedding.vectors[tokens.FIRST_BASE : tokens.FIRST_BASE + 4].mean(0)
    for place in (3, 12):
        moved = vectors.clone()
        moved[place] += 1e-3 * (vectors[place] - middle)
        hook = model.embedding.register_forward_hook(lambda module, given, out, moved=moved: moved[None])
        with torch.no_grad():
            after = float(target(IDS[None])[0])
        hook.remove()
        with torch.no_grad():
            slope = (after - float(target(IDS[None])[0])) / 1e-3
        assert found[place] == pytest.approx(slope, rel=0.05, abs=0.02)


def test_a_masked_model_is_asked_one_hidden_base_at_a_time() -> None:
    model = language_model(bidirectional="add", reverse_complement="equivariant")
    found = mutagenesis(HiddenBases(model), IDS)
    hidden = IDS.clone()
    hidden[4] = tokens.MASK
    with torch.no_grad():
        told = model(hidden[None])[0, 4, tokens.FIRST_BASE : tokens.FIRST_BASE + 4].double().log_softmax(0)
    expected = (told - told["ACGT".index(SEQUENCE[4])]) / math.log(2)
    assert np.allclose(found[4], expected.numpy(), atol=1e-4)


def test_memory_is_that_of_the_steps_and_rates() -> None:
    model = language_model()
    memory = remembered(Likelihood(model), IDS)
    assert [layer.layer for layer in memory] == [0, 1]
    block = model.backbone.blocks[0]
    entered: list[torch.Tensor] = []
    hook = block.mixer.in_proj.register_forward_hook(lambda module, given, out: entered.append(out))
    with torch.no_grad():
        model(IDS[None])
    hook.remove()
    ssm = block.mixer.ssm
    with torch.no_grad():
        x = entered[0].chunk(2, dim=-1)[0].transpose(1, 2)
        padded = torch.nn.functional.pad(x, (3, 0))
        x = torch.nn.functional.conv1d(padded, ssm.conv_weight[:, None], ssm.conv_bias, groups=x.shape[1])
        x = torch.nn.functional.silu(x).transpose(1, 2)
        steps = torch.nn.functional.softplus(ssm.dt_proj(ssm.x_proj(x)[..., : ssm.config.rank]))
    assert torch.allclose(memory[0].steps, steps, rtol=1e-3)
    rates = ssm.A_log.detach().exp()
    table = channel_table(memory)
    step = steps[0, :, 3].median()
    row = table[(table["layer"] == 0) & (table["channel"] == 3)].iloc[0]
    assert row["longest"] == pytest.approx(float(1 / (step * rates[3].min())), rel=1e-3)
    assert row["shortest"] == pytest.approx(float(1 / (step * rates[3].max())), rel=1e-3)
    opened = openness(memory, len(IDS))
    expected = torch.log2(steps[0, 5] / steps[0].median(0).values).mean()
    assert opened[0, 5] == pytest.approx(float(expected), abs=1e-3)


def test_words_are_those_that_end_where_the_state_opens() -> None:
    opened = np.arange(len(SEQUENCE), dtype=float)[None]
    table = word_table(opened, IDS, [0]).set_index("word")
    assert table.loc["ACG", "openness"] == 2
    assert table.loc["CGT", "n"] == 2
    assert table.loc["CGT", "openness"] == (3 + 13) / 2
    assert table.loc["CAA", "n"] == 0  # an N stands between
    assert table["n"].sum() == len(SEQUENCE) - 2 - 3


def test_memory_of_other_mixers() -> None:
    two = language_model(pattern=["mamba2", "attention"], bidirectional="add")
    memory = remembered(HiddenBases(two), IDS)
    assert [layer.layer for layer in memory] == [0]
    assert memory[0].steps.shape[1] == len(IDS)
    assert (memory[0].steps > 0).all()
    assert (memory[0].rates > 0).all()


def test_the_strongest_stretch() -> None:
    values = np.array([0, 1, 0, -5, 4, 0, 0, np.nan])
    assert strongest_stretch(values, 2) == (3, 5)
    assert strongest_stretch(values, 100) == (0, 8)


def test_overlapping_stretches_of_a_track(tmp_path: Path) -> None:
    stretches = [
        ("b", 4, np.array([1.0, 2.0, 3.0])),
        ("b", 5, np.array([9.0, 9.0, 9.0])),
        ("a", 0, np.array([np.nan, 7])),
    ]
    assert write_track(tmp_path / "t.bw", {"a": 10, "b": 20}, stretches)
    with pybigtools.open(str(tmp_path / "t.bw")) as track:
        assert list(track.records("b")) == [(4, 5, 1.0), (5, 6, 2.0), (6, 7, 3.0), (7, 8, 9.0)]
        assert list(track.records("a")) == [(1, 2, 7.0)]
    assert not write_track(tmp_path / "no.bw", {"a": 10}, [("a", 0, np.array([np.nan]))])


def test_the_command_writes_tables_tracks_pictures_and_a_page(bundle: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(f">one\n{SEQUENCE * 3}\n>two\nNNNNNN\n")
    out = tmp_path / "why"
    asked = ["explain", "--model", str(bundle), "--fasta", str(fasta), "--out", str(out)]
    done = CliRunner().invoke(cli, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["methods"] == ["ism", "gradient", "integrated", "memory"]
    table = pd.read_csv(out / "attributions.tsv", sep="\t")
    assert list(table["base"]) == list(SEQUENCE * 3)
    assert {"to_A", "ism", "gradient", "integrated", "openness"} <= set(table)
    pictures = ("01_one_1-54.png", "01_one_1-54.svg", "memory.png")
    for name in ("ism.bw", "integrated.bw", "openness.bw", "memory.tsv", *pictures):
        assert (out / name).stat().st_size > 100
    page = (out / "report.html").read_text()
    assert "one:1-54" in page
    assert page.count("data:image/png;base64") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    again = CliRunner().invoke(cli, asked)
    assert again.exit_code == 2
    assert "--overwrite" in again.output


def test_a_region_keeps_its_place_in_the_genome(bundle: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(f">one\n{SEQUENCE * 5}\n")
    out = tmp_path / "why"
    asked = ["explain", "--model", str(bundle), "--fasta", str(fasta), "--out", str(out), "--method", "ism"]
    assert CliRunner().invoke(cli, [*asked, "--region", "one:20-40"]).exit_code == 0
    table = pd.read_csv(out / "attributions.tsv", sep="\t")
    assert table["start"].tolist() == list(range(19, 40))
    with pybigtools.open(str(out / "ism.bw")) as track:
        assert track.chroms() == {"one": 90}
        assert min(start for start, _, _ in track.records("one")) >= 19
    assert not (out / "memory.png").exists()


def test_a_region_on_the_minus_strand_is_explained_as_it_is_read(bundle: Path, tmp_path: Path) -> None:
    """The same values as of the reverse complement, at their own places in the genome."""
    text = SEQUENCE * 5
    turned = text.translate(str.maketrans("ACGTN", "TGCAN"))[::-1]
    (tmp_path / "g.fa").write_text(f">one\n{text}\n")
    (tmp_path / "t.fa").write_text(f">one\n{turned}\n")
    n, tables = len(text), {}
    for name, region in (("g", f"one:{n - 40 + 1}-{n - 19}:-"), ("t", "one:20-40")):
        asked = ["explain", "--model", str(bundle), "--fasta", str(tmp_path / f"{name}.fa"), "--method", "ism"]
        made = CliRunner().invoke(cli, [*asked, "--region", region, "--out", str(tmp_path / name)])
        assert made.exit_code == 0, made.output
        tables[name] = pd.read_csv(tmp_path / name / "attributions.tsv", sep="\t")
    assert tables["g"]["start"].tolist() == [n - 1 - place for place in tables["t"]["start"]]
    assert set(tables["g"]["strand"]) == {"-"}
    pd.testing.assert_frame_equal(*(tables[name].drop(columns=["start", "strand"]) for name in ("g", "t")))
    with pybigtools.open(str(tmp_path / "g" / "ism.bw")) as track:
        values = {start: value for start, _, value in track.records("one")}
    known = tables["g"].dropna()
    assert [values[place] for place in known["start"]] == pytest.approx(known["ism"].tolist(), abs=1e-5)


def test_what_cannot_be_explained_is_refused(bundle: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(f">one\n{'ACGT' * 5000}\n")
    asked = ["explain", "--model", str(bundle), "--fasta", str(fasta), "--out", str(tmp_path / "why")]
    long = CliRunner().invoke(cli, asked)
    assert long.exit_code == 2
    assert "too long to be explained" in long.output
    wrong = CliRunner().invoke(cli, [*asked, "--region", "one:1-50", "--class", "yeast"])
    assert wrong.exit_code == 2
    assert "no such class" in wrong.output
    masked = language_model(bidirectional="add")
    config = {
        "format": 1, "kind": "genomamba-lm", "model": masked.config.model_dump(mode="json"), "window": 64,
        "objective": {"kind": "masked", "fraction": 0.15}, "training": {},
    }  # fmt: skip
    save_bundle(tmp_path / "masked", masked.state_dict(), config, "# masked\n")
    asked = ["explain", "--model", str(tmp_path / "masked"), "--fasta", str(fasta), "--out", str(tmp_path / "m")]
    refused = CliRunner().invoke(cli, [*asked, "--region", "one:1-50", "--method", "gradient"])
    assert refused.exit_code == 2
    assert "one hidden base at a time" in refused.output
    assert CliRunner().invoke(cli, [*asked, "--region", "one:1-50"]).exit_code == 0


def test_a_network_without_a_share_is_not_asked_for_gradients(make_classifier: Maker) -> None:
    from genomamba.explanation.stretch import refusals

    model = make_classifier()
    assert refusals(model) == {}
    model.linear = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    model.shares = torch.tensor([1.0, 0.0])
    assert set(refusals(model)) == {"gradient", "integrated", "memory"}
    with pytest.raises(UserError, match="no such class"):
        ClassOdds(model, "nobody")
