"""Foreign sequences are seen to be foreign, and no more of the model's own than promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import genomamba
from genomamba import tokens
from genomamba.classifier import typicality
from genomamba.classifier.config import TypicalShape
from genomamba.classifier.examples import Examples, LabelledData, PackedSequences
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.typicality import MeanTypicality, Typicality, Unlike, bits_a_base
from genomamba.cli import cli
from genomamba.commands.classify import run_classify
from genomamba.commands.rethreshold import run_rethreshold
from mamba_data_prep.errors import UserError
from mamba_training.bundle import save_bundle

LETTERS = np.frombuffer(b"ACGT", np.uint8)
CLASSES = ("human", "E. coli", "x,y")


def chain(seed: int) -> np.ndarray:
    """Probabilities of the next base after each: what tells one genome from another here."""
    return np.random.default_rng(seed).dirichlet(np.full(4, 0.7), 4)


def drawn(chance: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    found = np.zeros(length, np.int64)
    for place in range(1, length):
        found[place] = random.choice(4, p=chance[found[place - 1]])
    return LETTERS[found]


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    return np.frombuffer(bases.tobytes().translate(bytes.maketrans(b"ACGT", b"TGCA")), np.uint8)[::-1]


def labelled(n: int = 600, length: int = 64, *, stranded: bool = False, some: int = 1) -> LabelledData:
    """Three genomes' windows; every `some`-th one is whole, the others are halves."""
    random = np.random.default_rng(5)
    labels = np.arange(n) % 3
    texts = [
        drawn(chain(7 + label), length if i % some == 0 else length // 2, random) for i, label in enumerate(labels)
    ]
    source = PackedSequences.pack(texts)
    cuts = np.split(np.arange(n), [n // 3, 2 * n // 3])
    train, valid, test = (Examples(source, rows, labels[rows].astype(np.int64)) for rows in cuts)
    return LabelledData(CLASSES, train, valid, test, length, stranded, {})


@pytest.fixture(scope="module")
def known() -> Typicality:
    return Typicality.of(labelled(1800))


def ids(text: bytes) -> np.ndarray:
    return tokens.encode(np.frombuffer(text, np.uint8))


@pytest.mark.parametrize("both", [False, True])
def test_bits_are_those_of_each_word_of_known_bases(both: bool) -> None:
    order, random = 2, np.random.default_rng(0)
    bits = random.random((3, 4 ** (order + 1))).astype(np.float32)
    text = "ACGGTNACCATGNTTNACGTACCA"
    expected, words = np.zeros(3), 0
    strands = [text, text.translate(str.maketrans("ACGT", "TGCA"))[::-1]] if both else [text]
    for strand in strands:
        for first in range(len(strand) - order):
            word = strand[first : first + order + 1]
            if "N" not in word:
                expected += bits[:, int("".join(str("ACGT".index(base)) for base in word), 4)]
                words += 1
    found = bits_a_base(ids(text.encode()), bits, order, both_strands=both)
    np.testing.assert_allclose(found, expected / words, rtol=1e-6)
    assert np.isnan(bits_a_base(ids(b"ACNGTN"), bits, order, both_strands=both)).all()


def test_like_sequences_are_flagged_as_seldom_as_promised(known: Typicality) -> None:
    random = np.random.default_rng(1)
    own = [tokens.encode(drawn(chain(7 + i % 3), 64, random)) for i in range(600)]
    p = known.of_windows(own)
    for level in (0.02, 0.1, 0.3):
        assert (p < level).mean() <= level + 3 * np.sqrt(level / 600)
    assert (p < 0.3).mean() > 0.02
    assert ((p > 0) & (p <= 1)).all()


@pytest.mark.parametrize("foreign", ["another genome", "a repeat", "half of it"])
def test_foreign_sequences_are_flagged(known: Typicality, foreign: str) -> None:
    random = np.random.default_rng(2)
    other = [drawn(chain(99), 64, random) for _ in range(200)]
    if foreign == "a repeat":
        other = [np.resize(drawn(chain(7), 3, random), 64) for _ in range(200)]
    if foreign == "half of it":
        other = [np.concatenate([drawn(chain(7), 32, random), bases[:32]]) for bases in other]
    p = known.of_windows([tokens.encode(bases) for bases in other])
    assert (p < 0.05).mean() > (0.9 if foreign == "another genome" else 0.4)


def test_the_p_value_counts_both_ends_with_ties() -> None:
    one = Typicality(TypicalShape(order=0, lengths=[4], held=5, stranded=True), 1)
    one.bits[0] = one.bits.new_tensor([1.0, 2.0, 3.0, 4.0])
    one.held[0, 0], one.counted[0, 0] = one.bits.new_tensor([1.0, 2.0, 2.0, 3.0, 0.0]), 4
    p = one.of_windows([ids(text) for text in (b"AAAA", b"CCCC", b"GGGG", b"TTTT", b"ACGT", b"NNNN")])
    np.testing.assert_allclose(p[:5], [0.8, 1.0, 0.8, 0.4, 0.8])  # 2 * (2, 3 or more, 2, 1, 2) / 5
    assert np.isnan(p[5])
    assert one.least == 0.4


def test_a_class_with_few_sequences_limits_how_untypical_anything_can_be() -> None:
    two = Typicality(TypicalShape(order=0, lengths=[4], held=99, stranded=True), 2)
    two.bits.copy_(two.bits.new_tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]))
    two.held[:, 0], two.counted[:, 0] = 2.5, two.counted.new_tensor([99, 9])
    assert two.least == 0.2
    assert two.of_windows([ids(b"AAAA")])[0] == pytest.approx(0.2)
    two.counted[1] = 0
    assert two.least == two.of_windows([ids(b"AAAA")])[0] == 1.0


def test_strands_are_read_as_the_data_say() -> None:
    random = np.random.default_rng(3)
    text = drawn(chain(7), 64, random)
    both, one = (Typicality.of(labelled(stranded=stranded)) for stranded in (False, True))
    pair = [tokens.encode(text), tokens.encode(reverse_complement(text))]
    forth, back = both.of_windows(pair)
    assert forth == back
    assert one.bits.sub(both.bits).abs().max() > 0.1
    forward, backward = (bits_a_base(way, one.bits.numpy(), 5, both_strands=False) for way in pair)
    assert abs(forward - backward).max() > 0.1


def test_short_sequences_are_compared_with_short_ones() -> None:
    data = labelled(1200, 256, some=2)
    known = Typicality.of(data)
    assert known.shape.lengths == [32, 64, 128, 256]
    assert known.counted.sum(0).tolist() == [800, 800, 800, 400]
    random = np.random.default_rng(4)
    for length in (32, 50, 128, 200, 256):
        p = known.of_windows([tokens.encode(drawn(chain(7 + i % 3), length, random)) for i in range(150)])
        assert (p < 0.1).mean() <= 0.1 + 3 * np.sqrt(0.1 / 150), length
    few = Typicality.of(labelled(120, 64, some=30))
    assert few.shape.lengths == [32]  # three sequences are longer


def test_a_training_sequence_is_judged_by_the_others() -> None:
    data = labelled(90)
    own = data.train.select(data.train.labels == 1)
    n_valid = int((data.valid.labels == 1).sum())
    pairs = list(typicality._held_out(data, 1, own, typicality._word_bits(own, 5, False)))
    assert len(pairs) == n_valid + len(own)
    sequences = {tokens.encode(bases).tobytes(): number for number, bases in enumerate(own)}
    for sequence, bits in pairs[n_valid:]:
        fold = sequences.pop(sequence.tobytes()) % 5
        others = own.select(np.arange(len(own)) % 5 != fold)
        assert np.array_equal(bits, typicality._word_bits(others, 5, False))
    assert not sequences


def test_no_more_sequences_are_held_than_are_useful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genomamba.classifier.typicality._MOST_HELD", 9)
    assert Typicality.of(labelled()).counted[:, -1].tolist() == [9, 9, 9]
    monkeypatch.setattr("genomamba.classifier.typicality._MOST_HELD", 77)  # some more than validation has
    counted = Typicality.of(labelled()).counted[:, -1].tolist()
    assert all(77 <= n < 77 + 5 for n in counted)


def test_a_record_has_twice_the_mean_of_its_windows() -> None:
    mean = MeanTypicality()
    assert np.isnan(mean.result())
    mean.add(float("nan"), 10)
    mean.add(0.3, 10)
    assert mean.result() == pytest.approx(0.3)
    mean.add(0.1, 30)
    assert mean.result() == pytest.approx(2 * (0.3 * 10 + 0.1 * 30) / 40)
    mean.add(1.0, 1000)
    assert mean.result() == 1.0


def test_the_report_says_it_in_words() -> None:
    assert Unlike(200, 3, 0.004).words == (
        "3 of 200 test examples (1.5%) have a typicality below 0.01, where 1% are expected at most."
    )
    assert "200 of each class allow one below 0.01" in Unlike(200, 0, 0.1).words
    counted = Unlike.of(Typicality.of(labelled(1800)), labelled(1800).test)
    assert counted.n == 600
    assert 0 < counted.unlike < 20


@pytest.fixture(scope="module")
def model(
    make_classifier: Callable[..., SequenceClassifier], known: Typicality, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    network = make_classifier()
    network.know_typical(known)
    path = tmp_path_factory.mktemp("typical") / "model"
    save_bundle(path, network.state_dict(), network.config.to_dict(), "# A classifier\n")
    return path


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(6)
    texts = {f"own{i}": drawn(chain(7 + i % 3), 64, random) for i in range(6)}
    texts |= {"long": drawn(chain(7), 150, random), "foreign": drawn(chain(99), 64, random)}
    texts |= {"foreign_long": drawn(chain(99), 150, random), "n": np.full(40, ord("N"), np.uint8)}
    path = tmp_path_factory.mktemp("records") / "r.fa"
    path.write_text("".join(f">{name}\n{text.tobytes().decode()}\n" for name, text in texts.items()))
    return path


def test_classify_tells_and_abstains_on_what_is_foreign(
    model: Path, bundle: Path, fasta: Path, known: Typicality, tmp_path: Path
) -> None:
    told = run_classify(model=model, fasta=fasta, out=tmp_path / "all.tsv")
    table = pd.read_csv(tmp_path / "all.tsv", sep="\t").set_index("seq_id")
    windows = run_classify(model=model, fasta=fasta, out=tmp_path / "windows.parquet", per_window=True)
    each = pd.read_parquet(tmp_path / "windows.parquet")
    assert windows["judged"] == each["typicality"].notna().sum()
    for name in ("own0", "foreign"):
        assert table.loc[name, "typicality"] == pytest.approx(
            each.set_index("seq_id").loc[name, "typicality"], abs=1e-6
        )
    for name in ("long", "foreign_long"):
        mean = each[each["seq_id"] == name]["typicality"].mean()
        assert table.loc[name, "typicality"] == pytest.approx(min(1, 2 * mean), abs=1e-6)
    assert table.loc[["foreign", "foreign_long"], "typicality"].max() < 0.02
    assert table.loc[[f"own{i}" for i in range(6)], "typicality"].min() > 0.02
    assert np.isnan(table.loc["n", "typicality"])
    probabilities = table[[f"prob_{name}" for name in CLASSES]].to_numpy()[:-1]
    two = np.sort(probabilities, axis=1)[:, -2:]
    np.testing.assert_allclose(table["margin"][:-1], two[:, 1] - two[:, 0], atol=2e-6)
    assert (told["judged"], told["unlike"]) == (9, int((table["typicality"] < 0.01).sum()))
    assert f"{told['unlike']} of 9 rows" in told["text"]
    run_classify(model=model, fasta=fasta, out=tmp_path / "strict.tsv", min_typicality=0.02)
    again = run_rethreshold(table=tmp_path / "all.tsv", out=tmp_path / "again.tsv", min_typicality=0.02)
    assert (tmp_path / "again.tsv").read_text() == (tmp_path / "strict.tsv").read_text()
    assert again["changed"] == 2
    strict = pd.read_csv(tmp_path / "strict.tsv", sep="\t").set_index("seq_id")
    assert strict.loc[["foreign", "foreign_long"], "reason"].tolist() == ["typicality below 0.02"] * 2
    assert strict.loc["n", "reason"] == "no known base"
    back = run_rethreshold(table=tmp_path / "again.tsv", out=tmp_path / "back.tsv")
    assert (tmp_path / "back.tsv").read_text() == (tmp_path / "all.tsv").read_text()
    assert back["changed"] == 2
    side = json.loads((tmp_path / "strict.tsv.json").read_text())
    assert side["settings"]["min_typicality"] == 0.02


def test_a_model_that_does_not_know_says_nothing(bundle: Path, fasta: Path, tmp_path: Path) -> None:
    told = run_classify(model=bundle, fasta=fasta, out=tmp_path / "p.tsv")
    table = pd.read_csv(tmp_path / "p.tsv", sep="\t")
    assert table["typicality"].isna().all()
    assert (told["judged"], told["unlike"]) == (0, 0)
    assert "unlike" not in told["text"]
    with pytest.raises(UserError, match="does not know what is typical"):
        run_classify(model=bundle, fasta=fasta, out=tmp_path / "q.tsv", min_typicality=0.01)
    found = CliRunner().invoke(
        cli, ["rethreshold", str(tmp_path / "p.tsv"), "--min-typicality", "0.1", "--out", str(tmp_path / "r.tsv")]
    )
    assert found.exit_code == 2
    assert "does not say how typical" in found.output
    assert not (tmp_path / "r.tsv").exists()


def test_from_python(model: Path, known: Typicality) -> None:
    texts = {"a": "ACGTTGCA" * 8, "b": "ACGTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT"}
    table = genomamba.classify(genomamba.load(model), texts)
    expected = known.of_windows([ids(text.encode()) for text in texts.values()])
    np.testing.assert_allclose(table["typicality"], expected)
