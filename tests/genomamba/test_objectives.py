"""Hidden bases: what is asked, that both strands are treated alike, and that counts on both sides are as defined."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from genomamba import tokens
from genomamba.classifier.config import HeadConfig, StemConfig
from genomamba.classifier.network import ClassifierConfig, SequenceClassifier
from genomamba.cli import cli
from genomamba.commands.pretrain import run_pretrain
from genomamba.config import ModelConfig, ObjectiveConfig, load_config
from genomamba.language_model.both_sides import BothSides
from genomamba.language_model.data import GenomeWindows
from genomamba.language_model.markov import STRENGTHS
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.objectives import IGNORED, Objective, is_base, next_base
from genomamba.prediction.classified import classify_windows
from genomamba.prediction.predictor import Predictor
from genomamba.prediction.record_windows import record_windows
from genomamba.prediction.stretches import record_stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import FastaPiece
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.windows import tile

MASKED = Objective(ObjectiveConfig(kind="masked"))
EQUIVARIANT = ModelConfig(d_model=32, n_layers=2, d_state=4, bidirectional="add", reverse_complement="equivariant")


def some_ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(tokens.FIRST_BASE, tokens.N + 1, (rows, length)).astype(np.uint8))


def reverse_complement(ids: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(tokens.reverse_complement(ids.numpy()).copy())


def test_fifteen_percent_of_the_bases_are_asked_for_and_no_other_letter() -> None:
    ids = some_ids(20, 5000)
    torch.manual_seed(1)
    question = MASKED.training(ids)
    asked = question.targets != IGNORED
    assert not asked[~is_base(ids)].any()
    assert float(asked[is_base(ids)].float().mean()) == pytest.approx(0.15, abs=0.005)
    assert torch.equal(question.targets[asked], ids[asked].long())
    assert torch.equal(question.inputs[~asked], ids[~asked])
    read = question.inputs[asked]
    assert float((read == tokens.MASK).float().mean()) == pytest.approx(0.8, abs=0.01)
    others = read[read != tokens.MASK]
    assert is_base(others[None]).all()
    same = float((read == ids[asked]).float().mean())
    assert same == pytest.approx(0.1 + 0.1 / 4, abs=0.01)  # a random base is the right one a time in four
    assert not torch.equal(MASKED.training(ids).targets, question.targets)


def test_a_window_is_always_asked_the_same_whatever_stands_beside_it() -> None:
    ids = some_ids(6, 300)
    together = MASKED.scoring(ids)
    for row in range(6):
        alone = MASKED.scoring(ids[row : row + 1])
        assert torch.equal(alone.inputs[0], together.inputs[row])
        assert torch.equal(alone.targets[0], together.targets[row])


def test_the_next_base_is_the_one_that_follows() -> None:
    ids = some_ids(2, 50)
    question = next_base(ids)
    assert torch.equal(question.inputs, ids)
    assert (question.targets[:, -1] == IGNORED).all()
    following = ids[:, 1:].long()
    assert torch.equal(question.targets[:, :-1], torch.where(is_base(following), following, IGNORED))


@pytest.mark.parametrize("training", [False, True])
def test_the_logits_of_the_other_strand_are_those_of_the_complements(training: bool) -> None:
    torch.manual_seed(0)
    model = GenomeLM(EQUIVARIANT, None, MASKED.config).train(training)
    ids = some_ids(3, 77)
    with torch.no_grad():
        given, other = model(ids), model(reverse_complement(ids))
    complement = torch.from_numpy(tokens.COMPLEMENT).long()
    assert torch.allclose(other, given.flip(1)[..., complement], atol=1e-5)
    assert not torch.allclose(other, given.flip(1), atol=1e-2)


def test_a_classifier_gives_both_strands_the_same_probabilities_where_strand_means_nothing() -> None:
    torch.manual_seed(0)
    ids, lengths = some_ids(4, 60), torch.tensor([60, 59, 13, 1])
    turned = torch.full_like(ids, tokens.PAD)
    for row, length in enumerate(lengths.tolist()):
        turned[row, :length] = reverse_complement(ids[row : row + 1, :length])[0]
        ids[row, length:] = tokens.PAD
    for pooling in ("mean", "attention", "last", "scales"):
        head = HeadConfig(pooling=pooling)
        alike = ClassifierConfig(EQUIVARIANT, StemConfig(), head, ("a", "b"), 60, stranded=False)
        network = SequenceClassifier(alike).eval()
        with torch.no_grad():
            given, other = network(ids, lengths).softmax(1), network(turned, lengths).softmax(1)
            assert torch.allclose(given, other, atol=1e-5), pooling
    ids, lengths = ids[:1], lengths[:1]
    stranded = SequenceClassifier(ClassifierConfig(EQUIVARIANT, StemConfig(), HeadConfig(), ("a", "b"), 60)).eval()
    with torch.no_grad():
        assert not torch.allclose(stranded(ids, lengths), stranded(reverse_complement(ids), lengths), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.bidirectional=add"], "objective.kind masked"),
        (["objective.kind=masked", "counts=null"], "looks both ways"),
        (["model.reverse_complement=equivariant", "model.d_model=129"], "odd"),
        (["model.reverse_complement=equivariant", "model.tie_embeddings=false"], "tie_embeddings"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(None, settings)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("genomamba-bi-470k", 0.47e6), ("genomamba-bi-1.4m", 1.35e6), ("genomamba-bi-1.9m", 1.9e6),
     ("genomamba-bi-7.7m", 7.7e6)],
)  # fmt: skip
def test_presets_have_the_published_sizes(preset: str, parameters: float) -> None:
    settings = load_config(preset)
    with torch.device("meta"):
        model = GenomeLM(settings.model, None, settings.objective)
    assert model.n_parameters() / 2 == pytest.approx(parameters / 2, rel=0.05)
    assert settings.model.reverse_complement == "equivariant"


def plain_nats(train: list[str], inputs: str, target: dict[int, str], k: int, strength: float) -> float:
    """The definition, one hidden base at a time."""
    complement = str.maketrans("ACGT", "TGCA")
    total = 0.0
    for place, base in target.items():
        p = dict.fromkeys("ACGT", 0.25)
        for n in range(k + 1):
            left, right = inputs[max(0, place - n) : place], inputs[place + 1 : place + 1 + n]
            if len(left) < n or len(right) < n or set(left + right) - set("ACGT"):
                break
            seen: Counter[str] = Counter()
            for text in train:
                for strand in (text, text.translate(complement)[::-1]):
                    for at in range(n, len(strand) - n):
                        if strand[at - n : at] == left and strand[at + 1 : at + 1 + n] == right:
                            seen[strand[at]] += 1
            counted = sum(seen[b] for b in "ACGT")
            p = {b: (seen[b] + strength * p[b]) / (counted + strength) for b in "ACGT"}
        total -= math.log(p[base])
    return total


def test_counts_on_both_sides_are_those_of_the_definition(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    texts = ["".join(random.choice(list("AACGTTN"), 80)) for _ in range(6)]
    (tmp_path / "g.fa").write_text("".join(f">r{n}\n{text}\n" for n, text in enumerate(texts)))
    genome = Genome.open(tmp_path / "g.fa")
    windows = GenomeWindows(genome, tile(genome, 40))
    counts = BothSides(windows, 2)
    found = counts.nats(windows, MASKED)
    train = [text[at : at + 40] for text in texts for at in (0, 40)]
    letters = {**{v: k for k, v in tokens.VOCAB.items() if len(k) == 1}, tokens.MASK: "."}
    ids = torch.from_numpy(np.concatenate(list(windows.blocks())))
    question = MASKED.scoring(ids)
    for row in (0, 3, 7):
        inputs = "".join(letters[int(one)] for one in question.inputs[row])
        target = {n: letters[int(t)] for n, t in enumerate(question.targets[row]) if t != IGNORED}
        for k in range(3):
            for column in (0, 4):
                expected = plain_nats(train, inputs, target, k, STRENGTHS[column])
                assert found[row, k, column] == pytest.approx(expected, rel=1e-9)


def test_a_masked_model_learns_and_every_command_takes_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    bases = list(random.choice(list("ACGT"), 15_000))
    bases[1::2] = bases[0::2]  # each second base is the one before it: both sides tell the hidden one
    (tmp_path / "g.fa").write_text(">r\n" + "".join(bases) + "\n")
    small = ["model.d_model=32", "model.n_layers=1", "model.d_state=4", "data.window=64", "train.tokens_per_step=2048"]
    flags = {"fasta": str(tmp_path / "g.fa"), "train.max_steps": 60}
    run = tmp_path / "run"
    result = run_pretrain(out=run, config="genomamba-bi-470k", overrides=[*small, "optim.lr=1e-2"], flags=flags)
    assert result["test"]["bits"] < 1.9
    assert result["both_sides"]["neighbours"] >= 1
    assert result["both_sides"]["test_bits"] < 1.7
    assert "on either side" in result["text"]
    assert "hidden bases from those on both sides" in (run / "model" / "README.md").read_text()
    again = GenomeLM.from_bundle(run)
    assert again.objective == MASKED
    rows = ["sequence,label"] + [
        f"{''.join(random.choice(list('AACG' if n % 2 else 'CGTT'), 50))},{n % 2}" for n in range(80)
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    steps = [
        ["evaluate", "--model", str(run), "--fasta", str(tmp_path / "g.fa")],
        ["finetune", "table", "--table", str(tmp_path / "t.csv"), "--from", str(run), "--max-steps", "3",
         "--out", str(tmp_path / "clf")],
        ["info", str(run)],
    ]  # fmt: skip
    (tmp_path / "q.fa").write_text(">q\nACGTTGCAACGGTACCATTGAACGT\n")
    steps.append(["classify", "--model", str(tmp_path / "clf"), "--fasta", str(tmp_path / "q.fa"),
                  "--out", str(tmp_path / "q.tsv")])  # fmt: skip
    for arguments in steps:
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, (arguments, done.output)
    refused = CliRunner().invoke(cli, ["convert", "--model", str(run), "--out", str(tmp_path / "hf")])
    assert refused.exit_code == 2
    assert "masked model" in refused.output


@pytest.mark.parametrize("pooling", ["mean", "last", "scales"])
def test_a_long_record_and_its_reverse_complement_are_classified_alike(pooling: str) -> None:
    torch.manual_seed(0)
    head = HeadConfig.model_validate({"pooling": pooling})
    config = ClassifierConfig(EQUIVARIANT, StemConfig(), head, ("a", "b"), 50, stranded=False)
    network = SequenceClassifier(config).eval()
    with torch.no_grad():
        network.head.weight.mul_(20)
    text = "".join(np.random.default_rng(5).choice(list("ACGTN"), 1003, p=[0.3, 0.2, 0.2, 0.29, 0.01]))
    found = []
    for one in (text, tokens.decode(tokens.reverse_complement(tokens.encode(text)))):
        letters = np.frombuffer(one.encode(), np.uint8)
        pieces = [FastaPiece("r", "", 0, 0, letters, is_last=True, line=1)]
        rows = classify_windows(
            record_windows(record_stretches(pieces), 50, 30), Predictor(network, torch.device("cpu"))
        )
        found.append(np.concatenate([row.probabilities for row in rows]))
    assert found[0].shape == (1, 2)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
