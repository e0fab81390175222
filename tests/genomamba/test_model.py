"""The language model: what it may see, what it is scored on, and that it comes back from a bundle."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from genomamba import tokens
from genomamba.config import ModelConfig
from genomamba.language_model.model import GenomeLM, bits, next_base_nats
from mamba_data_prep.errors import UserError
from mamba_training.bundle import save_bundle

SMALL = ModelConfig(d_model=16, n_layers=2, d_state=4)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(7, 12, (3, 40))


def test_shapes_and_tied_weights(ids: torch.Tensor) -> None:
    model = GenomeLM(SMALL)
    assert model(ids).shape == (3, 40, 16)
    assert model.embeddings(ids.to(torch.uint8)).shape == (3, 40, 16)
    assert [name for name in model.state_dict() if not name.startswith("backbone")] == ["embedding.weight"]
    assert model.n_parameters() == sum(weight.numel() for weight in model.state_dict().values())


def test_the_default_model_has_about_1_4_million_parameters() -> None:
    assert 1.3e6 < GenomeLM(ModelConfig()).n_parameters() < 1.5e6


def test_no_prediction_depends_on_what_follows(ids: torch.Tensor) -> None:
    model = GenomeLM(SMALL).eval()
    changed = ids.clone()
    changed[:, 25:] = 7 + (changed[:, 25:] - 6) % 4
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :25], after[:, :25])
    assert not torch.allclose(before[:, 25:], after[:, 25:])


def test_a_softmax_over_all_tokens_is_one_over_the_bases(ids: torch.Tensor) -> None:
    probabilities = GenomeLM(SMALL)(ids).softmax(dim=-1)
    assert torch.allclose(probabilities[..., 7:11].sum(dim=-1), torch.ones(3, 40))


def test_loss_of_equal_odds_is_two_bits(ids: torch.Tensor) -> None:
    logits = torch.zeros(3, 40, 16)
    logits[..., [*range(7), *range(11, 16)]] = -1e4
    total, n = next_base_nats(logits, ids)
    assert bits(float(total) / int(n)) == pytest.approx(2.0)


def test_only_bases_with_something_before_them_are_targets() -> None:
    row = torch.from_numpy(tokens.encode("ACNG\x00\x00RT").astype("int64"))[None]
    logits = torch.zeros(1, 8, 16, requires_grad=True)
    total, n = next_base_nats(logits, row)
    assert int(n) == 3  # C after A, G after N, T after R
    total.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum(dim=-1).nonzero().flatten().tolist() == [0, 2, 6]
    assert float(total.detach()) == pytest.approx(3 * math.log(16))


def test_windows_without_a_target_cost_nothing() -> None:
    total, n = next_base_nats(torch.randn(2, 5, 16), torch.full((2, 5), tokens.N))
    assert (float(total), int(n)) == (0.0, 0)


def test_a_bundle_gives_the_same_model_back(tmp_path: Path, ids: torch.Tensor) -> None:
    model = GenomeLM(SMALL).eval()
    config = {"format": 1, "kind": "genomamba-lm", "model": SMALL.model_dump(mode="json"), "window": 40}
    save_bundle(tmp_path / "run" / "model", model.state_dict(), config, "card")
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        again = GenomeLM.from_bundle(place)
        assert torch.equal(again(ids), model(ids))
        assert not again.training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "genomamba-classifier"}, "not a language model"),
        ({"model": {"d_model": 16, "layers": 2}}, "no setting layers"),
        ({"model": {**SMALL.model_dump(mode="json"), "d_model": 32}}, "do not fit"),
        ({"model": None}, "no model settings"),
    ],
)
def test_a_bundle_of_something_else_is_refused(tmp_path: Path, changes: dict, words: str) -> None:
    config = {"format": 1, "kind": "genomamba-lm", "model": SMALL.model_dump(mode="json"), **changes}
    save_bundle(tmp_path / "model", GenomeLM(SMALL).state_dict(), config, "card")
    with pytest.raises(UserError, match=words):
        GenomeLM.from_bundle(tmp_path / "model")


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ({"pattern": ("mamba2",), "head_width": 7}, "head_width"),
        ({"pattern": ("mamba2",), "head_width": 8, "n_groups": 3}, "n_groups"),
        ({"pattern": ("s4d",), "d_state": 3}, "d_state"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shape, name):
    with pytest.raises(UserError, match=f"backbone config: {name} = "):
        GenomeLM(ModelConfig(d_model=16, n_layers=1, **shape))
