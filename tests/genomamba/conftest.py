"""Small classifiers and language models: random weights, for everything that does not depend on what was learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba.classifier.config import HeadConfig, StemConfig
from genomamba.classifier.network import ClassifierConfig, SequenceClassifier
from genomamba.config import ModelConfig, ObjectiveConfig, TableShape
from genomamba.language_model.model import GenomeLM


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., SequenceClassifier]:
    """A function (pooling, bidirectional, stem, window, pattern) -> a classifier of three classes, sure of itself."""

    def make(
        pooling: str = "mean",
        bidirectional: str = "add",
        taps: int = 0,
        stride: int = 1,
        positions: bool = False,
        window: int = 64,
        pattern: tuple[str, ...] = ("mamba",),
    ) -> SequenceClassifier:
        torch.manual_seed(3)
        config = ClassifierConfig(
            model=ModelConfig.model_validate(
                {"d_model": 16, "n_layers": 2, "d_state": 4, "bidirectional": bidirectional, "pattern": pattern}
            ),
            stem=StemConfig(taps=taps, stride=stride, positions=positions),
            head=HeadConfig.model_validate({"pooling": pooling}),
            classes=("human", "E. coli", "x,y"),
            window=window,
        )
        network = SequenceClassifier(config).eval()
        with torch.no_grad():
            network.head.weight.mul_(8)
            if positions:
                network.positions.normal_()
        return network

    return make


@pytest.fixture(scope="session")
def bundle(make_classifier: Callable[..., SequenceClassifier], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of such a classifier, window 64."""
    from mamba_training.bundle import save_bundle

    network = make_classifier(taps=5, stride=2)
    path = tmp_path_factory.mktemp("bundle") / "model"
    save_bundle(path, network.state_dict(), network.config.to_dict(), "# A classifier\n")
    return path


@pytest.fixture(scope="session")
def make_language_model() -> Callable[..., GenomeLM]:
    """A function (counts, kind, bidirectional, reverse_complement) -> a language model with something to say."""

    def make(
        counts: bool = True, kind: str = "next_base", bidirectional: str = "none", reverse_complement: str = "none"
    ) -> GenomeLM:
        torch.manual_seed(4)
        shape = ModelConfig.model_validate(
            {"d_model": 16, "n_layers": 2, "d_state": 4, "bidirectional": bidirectional,
             "reverse_complement": reverse_complement}
        )  # fmt: skip
        table = TableShape(order=3, long_contexts=50) if counts else None
        model = GenomeLM(shape, table, ObjectiveConfig.model_validate({"kind": kind})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        if model.table is not None:
            _fill(model, np.random.default_rng(5))
        return model

    return make


def _fill(model: GenomeLM, rng: np.random.Generator) -> None:
    """Numbers for the table: long contexts are held of the sequences that the generator of seed 5 gives first."""
    assert model.table is not None
    bases = rng.integers(7, 11, (2, 300))[0, 20:90] - 7
    keys = sorted({int("".join(map(str, bases[i : i + 16])), 4) for i in range(50)})
    books = [torch.from_numpy(rng.dirichlet(np.ones(4), 256)).float() for _ in range(2)]
    codes, long_codes = (torch.from_numpy(rng.integers(0, 256, n)) for n in (model.table.shape.size, len(keys)))
    model.table.fill(codes, books[0], torch.tensor(keys), long_codes, books[1])


@pytest.fixture(scope="session")
def save_language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[GenomeLM], Path]:
    """A function (model) -> its bundle, of window 64."""
    from genomamba.language_model.model import BUNDLE_KIND
    from mamba_training.bundle import save_bundle

    def save(model: GenomeLM) -> Path:
        path = tmp_path_factory.mktemp("language") / "model"
        config = {
            "format": 1, "kind": BUNDLE_KIND, "model": model.config.model_dump(mode="json"), "window": 64,
            "table": None if model.table is None else model.table.shape.model_dump(),
            "objective": model.objective.config.model_dump(),
        }  # fmt: skip
        save_bundle(path, model.state_dict(), config, "# A language model\n")
        return path

    return save
