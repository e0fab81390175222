"""Small classifiers: random weights, for everything that does not depend on what was learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genomamba.classifier.config import HeadConfig, StemConfig
from genomamba.classifier.network import ClassifierConfig, SequenceClassifier
from genomamba.config import ModelConfig


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
