"""The regression inside a classifier gives scikit-learn's logits, and validation says how much either part counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.classifier.config import LinearShape
from genomamba.classifier.kmers import fit_logistic, kmer_table, letter_table, merged_strands, merged_words
from genomamba.classifier.linear import LinearPart
from genomamba.classifier.metrics import softmax
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.shares import added, choose_shares
from genomamba.classifier.small_cnn import SmallCnn, cnn_baseline
from genomamba.prediction.predictor import padded

CLASSES = 3


def sequences(n: int, seed: int = 0, *, least: int = 4, most: int = 40) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(least, most + 1, n)
    return [np.frombuffer("".join(random.choice(list("ACGTN"), size)).encode(), np.uint8) for size in lengths]


def logits(part: LinearPart, texts: list[np.ndarray]) -> np.ndarray:
    ids, lengths = padded([tokens.encode(text) for text in texts])
    return part(ids, lengths).numpy()


@pytest.mark.parametrize("n_classes", [2, CLASSES])
@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_part_gives_the_logits_of_the_regression(k: int, both_strands: bool, n_classes: int) -> None:
    texts = sequences(60, k)
    labels = np.arange(60) % n_classes
    table = merged_strands(kmer_table(texts, k)) if both_strands else kmer_table(texts, k)
    fit = fit_logistic(table, labels, n_classes, 0.1)
    shape = LinearShape(k=k, both_strands=both_strands)
    assert shape.n_features == table.shape[1]
    found = softmax(logits(LinearPart.of(fit, shape), texts))
    assert np.allclose(found, fit.probabilities(table), atol=1e-5)


def test_the_letters_of_aligned_sequences() -> None:
    texts = sequences(50, 7, least=20, most=24)
    labels = np.arange(50) % CLASSES
    table = letter_table(texts, 22)
    fit = fit_logistic(table, labels, CLASSES, 0.1)
    part = LinearPart.of(fit, LinearShape(features="letters", places=22))
    assert np.allclose(softmax(logits(part, texts)), fit.probabilities(table), atol=1e-5)


def test_a_class_that_training_lacks_is_never_foretold() -> None:
    texts = sequences(40, 1)
    fit = fit_logistic(kmer_table(texts, 2), np.arange(40) % 2, CLASSES, 0.1)
    assert softmax(logits(LinearPart.of(fit, LinearShape(k=2)), texts))[:, 2].max() < 1e-6


def test_padding_and_neighbours_change_nothing() -> None:
    texts = sequences(12, 3)
    fit = fit_logistic(kmer_table(texts, 3), np.arange(12) % CLASSES, CLASSES, 0.1)
    part = LinearPart.of(fit, LinearShape(k=3))
    together = logits(part, texts)
    assert np.allclose(together, np.concatenate([logits(part, [text]) for text in texts]), atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_both_strands_have_the_same_logits(k: int) -> None:
    texts = sequences(30, k)
    shape = LinearShape(k=k, both_strands=True)
    fit = fit_logistic(merged_strands(kmer_table(texts, k)), np.arange(30) % 2, 2, 0.1)
    part = LinearPart.of(fit, shape)
    reversed_ids = [tokens.reverse_complement(tokens.encode(text)) for text in texts]
    assert np.allclose(logits(part, texts), part(*padded(reversed_ids)).numpy(), atol=1e-5)


def test_words_are_merged_with_their_reverse_complements() -> None:
    other, place = merged_words(2)
    words = [a + b for a in "ACGT" for b in "ACGT"]
    complement = str.maketrans("ACGT", "TGCA")
    assert [words[number] for number in other] == [word.translate(complement)[::-1] for word in words]
    assert (place == place[other]).all()
    assert place.max() + 1 == LinearShape(k=2, both_strands=True).n_features == 10


def examples(n: int, signal: dict[str, float], seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels, and parts' logits, each of which knows the label as strongly as `signal` says."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n)
    truth = np.eye(CLASSES)[labels]
    return labels, {name: strength * truth + random.normal(size=truth.shape) for name, strength in signal.items()}


def test_every_part_has_a_share_where_each_knows_something() -> None:
    signal = {"linear": 1.5, "network": 1.0, "cnn": 0.7}
    labels, parts = examples(4000, signal)
    shares = choose_shares(labels, parts)
    for name, strength in signal.items():  # the likelihood of unit noise is the signal itself
        assert shares.factors[name] == pytest.approx(strength, rel=0.15)
    assert shares.saved > shares.error > 0
    assert shares.nats["linear + network + cnn"] == min(shares.nats.values())
    assert shares.without["network"] == 0
    assert shares.saved == pytest.approx(shares.nats["linear + cnn"] - shares.nats["linear + network + cnn"])
    assert "has a share beside regression and small CNN" in shares.words
    both = added(shares.factors, parts)
    assert both == pytest.approx(sum(shares.factors[name] * parts[name] for name in parts))


@pytest.mark.parametrize(
    ("signal", "kept"),
    [({"linear": 2.0, "network": 0.0}, {"linear"}), ({"linear": 0.0, "network": 2.0}, {"network"}),
     ({"linear": 1.0, "network": 0.0, "cnn": 1.0}, {"linear", "cnn"})],
)  # fmt: skip
def test_a_part_that_knows_nothing_has_no_share(signal: dict[str, float], kept: set[str]) -> None:
    chosen = [choose_shares(*examples(300, signal, seed)) for seed in range(20)]
    right = [shares for shares in chosen if set(shares.used) == kept]
    assert len(right) >= 12  # by chance a useless part saves more than a standard error about once in six
    said = "alone has a share" if kept == {"network"} else "has no share"
    assert all(f"The network {said}" in one.words for one in right)
    for name in kept:
        assert np.mean([one.factors[name] for one in right]) == pytest.approx(signal[name], rel=0.2)
    if "network" not in kept:
        assert all(one.saved <= one.error for one in right)


def test_a_joined_classifier_is_the_sum_of_its_parts(make_classifier, tmp_path) -> None:
    from mamba_training.bundle import save_bundle

    network: SequenceClassifier = make_classifier()
    n_classes = len(network.config.classes)
    texts = sequences(30, 2, least=10, most=30)
    fit = fit_logistic(kmer_table(texts, 3), np.arange(30) % n_classes, n_classes, 0.1)
    part, cnn = LinearPart.of(fit, LinearShape(k=3)), SmallCnn(25, n_classes).eval()
    ids, lengths = padded([tokens.encode(text) for text in texts])
    letters = torch.from_numpy(letter_table(texts, 25)).reshape(30, 25, 4).transpose(1, 2)
    with torch.no_grad():
        alone = network(ids, lengths)
        network.join(part, cnn, {"linear": 0.5, "network": 2.0, "cnn": 3.0})
        expected = 0.5 * part(ids, lengths) + 2 * alone + 3 * cnn(letters)
        assert torch.allclose(network(ids, lengths), expected, atol=1e-5)
        save_bundle(tmp_path / "all", network.state_dict(), network.config.to_dict(), "card")
        again = SequenceClassifier.from_bundle(tmp_path / "all")
        assert torch.equal(again(ids, lengths), network(ids, lengths))
        network.join(part, cnn, {"linear": 0.5, "network": 2.0, "cnn": 0.0})
        assert torch.allclose(network(ids, lengths), 0.5 * part(ids, lengths) + 2 * alone, atol=1e-5)
        assert not any(name.startswith("cnn") for name in network.state_dict())
        save_bundle(tmp_path / "two", network.state_dict(), network.config.to_dict(), "card")
        again = SequenceClassifier.from_bundle(tmp_path / "two")
        assert torch.equal(again(ids, lengths), network(ids, lengths))
        network.join(part, None, {"linear": 1.0, "network": 0.0})
        assert torch.equal(network(ids, lengths), part(ids, lengths))


def test_the_small_cnn_finds_a_motif_that_moves_little_and_chance_where_there_is_none() -> None:
    random = np.random.default_rng(4)

    def split(n: int, motif: bool) -> tuple[np.ndarray, np.ndarray]:
        texts = random.choice(list("ACGT"), (n, 60))
        labels = random.integers(0, 2, n)
        for text, label in zip(texts, labels, strict=True):
            if motif and label:
                at = 28 + random.integers(0, 4)
                text[at : at + 6] = list("TATAAA")
        return letter_table([np.frombuffer("".join(text).encode(), np.uint8) for text in texts], 60), labels

    state = torch.random.get_rng_state()
    found = cnn_baseline(split(600, True), split(150, True), split(300, True), 2)
    assert found.test.accuracy > 0.9
    assert not found.network.training
    assert torch.equal(state, torch.random.get_rng_state())
    nothing = cnn_baseline(split(200, False), split(100, False), split(300, False), 2, epochs=5)
    assert abs(nothing.test.accuracy - 0.5) < 0.12
