"""Sequences drawn from a model follow its probabilities, whatever is drawn beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from Bio import SeqIO
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from genomamba import tokens
from genomamba.cli import cli
from genomamba.commands import generate
from genomamba.commands.generate import run_generate
from genomamba.language_model.likelihood import log2_likelihood
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from genomamba.language_model.sampling import Sampling, drawn, prompted, sampled
from mamba_data_prep.errors import Interrupted, UserError
from mamba_training.bundle import save_bundle

SEEDS = [(3, 0, number) for number in range(5)]


@pytest.fixture(scope="module")
def model(make_language_model: Callable[..., GenomeLM]) -> GenomeLM:
    return make_language_model()


@pytest.fixture
def saved(model: GenomeLM, tmp_path: Path) -> Path:
    return save(model, tmp_path / "lm")


def save(model: GenomeLM, path: Path) -> Path:
    config = {
        "kind": BUNDLE_KIND, "model": model.config.model_dump(), "objective": model.objective.config.model_dump(),
        "table": None if model.table is None else model.table.shape.model_dump(), "window": 64,
    }  # fmt: skip
    save_bundle(path, model.state_dict(), config, "# A language model\n")
    return path


def whole(model: GenomeLM, prompt: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """log2 p of the four bases at each place of what was generated; those of the drawn ones are one whole pass's."""
    known = np.concatenate([prompt, ids])
    before = torch.from_numpy(known[None])
    steps = [log2_likelihood(model, before[:, :n]).state.following[0].numpy() for n in range(len(prompt), len(known))]
    scored = log2_likelihood(model, before).log2_p[0, len(prompt) :].numpy()
    own = np.stack(steps)[np.arange(len(ids)), ids - tokens.FIRST_BASE]
    np.testing.assert_allclose(own, scored, atol=1e-5)
    return np.stack(steps)


@given(
    st.lists(st.floats(-20, 0), min_size=4, max_size=4), st.floats(0.05, 10), st.integers(1, 4), st.floats(0.01, 1.0)
)  # fmt: skip
def test_only_the_likeliest_bases_are_drawn_and_their_order_stays(
    given_p: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    log2_p = np.array([given_p])
    p = Sampling(temperature, top_k, top_p).probabilities(log2_p)[0]
    kept = p > 0
    assert p.sum() == pytest.approx(1)
    assert 1 <= kept.sum() <= top_k
    assert log2_p[0][kept].min() >= log2_p[0][~kept].max(initial=-np.inf)
    tempered = np.exp2((log2_p[0] - log2_p.max()) / temperature)
    assert p[kept] == pytest.approx(tempered[kept] / tempered[kept].sum())


def test_settings_mean_what_they_say() -> None:
    log2_p = np.log2([[0.1, 0.4, 0.2, 0.3]])
    assert Sampling().probabilities(log2_p)[0] == pytest.approx([0.1, 0.4, 0.2, 0.3])
    assert Sampling(temperature=0).probabilities(log2_p)[0].tolist() == [0, 1, 0, 0]
    assert Sampling(top_k=2).probabilities(log2_p)[0] == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert Sampling(top_p=0.7).probabilities(log2_p)[0] == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert Sampling(top_p=0.71).probabilities(log2_p)[0] == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9])
    assert Sampling(temperature=0.5).probabilities(log2_p)[0] == pytest.approx(np.array([1, 16, 4, 9]) / 30)


def test_a_base_of_probability_zero_is_never_drawn() -> None:
    p = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.3, 0.0, 0.7]])
    for uniform in (0.0, 0.2999, 0.3, 0.5, np.nextafter(1.0, 0.0)):
        base = drawn(p, np.full(3, uniform))
        assert (p[np.arange(3), base] > 0).all()
    assert drawn(np.array([[0.3, 0.2, 0.1, 0.4]] * 4), np.array([0.29, 0.49, 0.59, 0.6])).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("length", [0, 1, 40])
def test_each_base_is_drawn_from_what_one_pass_over_all_says(model: GenomeLM, length: int) -> None:
    prompt = np.random.default_rng(length).integers(7, 11, length).astype(np.uint8)
    found = sampled(model, prompted(model, prompt), 30, SEEDS, Sampling(temperature=0.8))
    for ids, seed in zip(found, SEEDS, strict=True):
        first = 0 if length else 1  # nothing is said of a base that has none before it
        told = whole(model, prompt, ids) if length else whole(model, ids[:1], ids[1:])
        p = Sampling(temperature=0.8).probabilities(told)
        uniform = np.random.default_rng(list(seed)).random(30)[first:]
        assert (drawn(p, uniform) + tokens.FIRST_BASE).tolist() == ids[first:].tolist()


def test_temperature_zero_takes_the_likeliest(model: GenomeLM) -> None:
    prompt = np.array([7, 8, 10], np.uint8)
    (ids,) = sampled(model, prompted(model, prompt), 25, SEEDS[:1], Sampling(temperature=0))
    assert ids.tolist() == (whole(model, prompt, ids).argmax(axis=1) + tokens.FIRST_BASE).tolist()
    assert ids.tolist() == sampled(model, prompted(model, prompt), 25, SEEDS[1:2], Sampling(top_k=1))[0].tolist()


def test_a_sequence_does_not_depend_on_those_beside_it(model: GenomeLM) -> None:
    begun = prompted(model, np.array([9, 9, 7], np.uint8))
    together = sampled(model, begun, 40, SEEDS, Sampling())
    for ids, seed in zip(together, SEEDS, strict=True):
        assert np.array_equal(ids, sampled(model, begun, 40, [seed], Sampling())[0])
    assert len({ids.tobytes() for ids in together}) == len(SEEDS)


def test_frequencies_are_the_models_probabilities(model: GenomeLM) -> None:
    begun = prompted(model, np.array([7, 10, 8, 9, 9], np.uint8))
    assert begun is not None
    found = sampled(model, begun, 1, [(0, number) for number in range(4000)], Sampling())[:, 0]
    counts = np.bincount(found - tokens.FIRST_BASE, minlength=4)
    p = np.exp2(begun.following[0].numpy())
    assert chisquare(counts, 4000 * p / p.sum()).pvalue > 1e-3
    assert chisquare(counts, np.full(4, 1000)).pvalue < 1e-3  # and they differ from chance


def test_the_file_says_how_it_was_made(saved: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "p.fa"
    prompt.write_text(">one some words\nACGTN\nacg\n>two\nTT\n")
    out = tmp_path / "g.fa.gz"
    asked = {"model": saved, "prompt": prompt, "length": 70, "number": 3, "seed": 5, "top_p": 0.9}
    result = run_generate(**asked, out=out, with_prompt=True, batch=2)
    assert (result["sequences"], result["bases"]) == (6, 420)
    with gzip.open(out, "rt") as file:
        lines = file.read().splitlines()
    assert max(map(len, (line for line in lines if line[0] != ">"))) == 60
    with gzip.open(out, "rt") as file:
        records = list(SeqIO.parse(file, "fasta"))
    assert [record.id for record in records] == ["one_1", "one_2", "one_3", "two_1", "two_2", "two_3"]
    assert records[1].description.endswith("model=lm temperature=1 top_k=4 top_p=0.9 seed=5 sample=2 prompt=one:8")
    assert all(str(record.seq).startswith("ACGTNACG") for record in records[:3])
    assert [len(record) for record in records] == [78] * 3 + [72] * 3
    assert json.loads(Path(f"{out}.json").read_text())["settings"]["top_p"] == 0.9
    run_generate(**asked, out=tmp_path / "again.fa", batch=1)
    with (tmp_path / "again.fa").open() as file:
        again = list(SeqIO.parse(file, "fasta"))
    assert [str(one.seq) for one in again] == [str(one.seq)[-70:] for one in records]
    with pytest.raises(UserError, match="exists"):
        run_generate(**asked, out=out)


def test_a_masked_model_is_refused(make_language_model: Callable[..., GenomeLM], tmp_path: Path) -> None:
    masked = save(make_language_model(kind="masked", bidirectional="add"), tmp_path / "masked")
    asked = ["generate", "--model", str(masked), "--length", "5", "--out", str(tmp_path / "g.fa")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 2
    assert "cannot go on with a sequence" in done.output
    assert not (tmp_path / "g.fa").exists()


def test_a_stopped_run_leaves_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stopped(*given: object, **more: object) -> np.ndarray:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sampled(*given, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(generate, "sampled", stopped)
    with pytest.raises(Interrupted, match="nothing was written"):
        run_generate(model=saved, length=5, number=4, batch=2, out=tmp_path / "g.fa")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lm"]


def test_an_empty_prompt_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "p.fa").write_text("")
    with pytest.raises(UserError):
        run_generate(model=saved, prompt=tmp_path / "p.fa", length=5, out=tmp_path / "g.fa")
