"""Mamba is said to help only where it surely beats its ridge alone and a linear map in its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mamba_data_prep.errors import UserError
from tsmamba.config import FitConfig, load_config
from tsmamba.fitting.fit import fit_ablation, fit_panel
from tsmamba.fitting.fitted import FittedModel
from tsmamba.fitting.residual import IDENTITY, MAMBA, OFF, Candidate, choose, train_candidates
from tsmamba.fitting.shrinkage import SHRINKAGES, Saving, saving
from tsmamba.networks import ResidualModel, Shape
from tsmamba.panel.panel import Panel
from tsmamba.panel.windows import Batch

LEARNING = {
    "lookback": 12, "network__patch": 1, "network__d_model": 16, "network__dropout": 0.0, "train__loss": "mse",
    "train__lr": 0.02, "train__least_steps": 150, "train__most_steps": 150, "train__batch_size": 256,
    "train__validations": 3, "seasons": [],
}  # fmt: skip


def chaos(rows: int = 1500) -> Panel:
    """The logistic map: the next value is a parabola of the last one, with which it is not correlated at all."""
    values = np.empty(rows)
    values[0] = 0.3
    for place in range(1, rows):
        values[place] = 4 * values[place - 1] * (1 - values[place - 1])
    return Panel.wide(values[:, None])


def errors(savings: list[float]) -> torch.Tensor:
    """Sums over stretches of 10 errors each: at full shrinkage a stretch saves this share of errors of size 1."""
    shrinkage = torch.tensor(SHRINKAGES, dtype=torch.float64)
    table = 10 * (1 - torch.tensor(savings, dtype=torch.float64)[:, None] * shrinkage)
    return torch.cat([table, table, torch.full((len(savings), 1), 10.0, dtype=torch.float64)], dim=1)


def candidate(backbone: str, savings: list[float], shrinkage: float = 1.0) -> Candidate:
    model = ResidualModel(Shape(24, 2), load_config().network, 0, backbone)
    return Candidate(backbone, model, shrinkage, errors(savings), {})


@pytest.fixture(scope="module")
def learnt() -> dict[str, FittedModel]:
    return fit_ablation(chaos(), 1, load_config("auto", **LEARNING))


def test_the_network_learns_what_no_linear_map_can(learnt: dict[str, FittedModel]) -> None:
    """The ridge alone explains nothing here: what is forecast, the network has learnt."""
    spread = float(np.var(chaos().series[0].values))
    scores = {name: fitted.report["valid_mse"] for name, fitted in learnt.items()}
    assert scores[OFF] == pytest.approx(1.0, abs=0.15)
    assert scores[IDENTITY] == pytest.approx(1.0, abs=0.15)
    assert scores["auto"] < 0.3
    panel = chaos(1540)
    forecasts = np.array([learnt["auto"].predict(panel, back).point[0, 0] for back in range(40, 0, -1)])
    assert np.square(forecasts - panel.series[0].values[-40:]).mean() < 0.3 * spread


def test_where_only_mamba_can_learn_it_is_said_to_help(learnt: dict[str, FittedModel]) -> None:
    report = learnt["auto"].report
    assert (report["model"], report["network"], report["mamba_helped"]) == ("ridge + mamba", "mamba", True)
    for row in (OFF, IDENTITY):
        assert report["mamba_saves"][row]["share"] > 3 * report["mamba_saves"][row]["standard_error"] > 0
    assert set(learnt) == {"auto", OFF, IDENTITY, MAMBA}
    assert learnt[OFF].report["network"] == "off"


def test_where_a_line_is_all_there_is_mamba_is_not_said_to_help(tiny: Callable[..., FitConfig]) -> None:
    rng = np.random.default_rng(0)
    values = np.zeros(400)
    for place in range(1, 400):
        values[place] = 0.9 * values[place - 1] + rng.normal()
    fitted = fit_panel(Panel.wide(values[:, None]), 6, tiny("auto", train__least_steps=60, train__most_steps=60))
    assert fitted.report["mamba_helped"] is not True
    assert fitted.report["network"] != "mamba"


@pytest.mark.parametrize(
    ("mamba", "identity", "kept", "helped"),
    [
        ([0.3, 0.31, 0.29, 0.3], [0.1, 0.11, 0.09, 0.1], "mamba", True),
        ([0.3, 0.31, 0.29, 0.3], [0.29, 0.32, 0.3, 0.29], "identity", False),  # better than the ridge, as a line is
        ([0.3, 0.1, 0.3, 0.1], [0.1, 0.3, 0.0, 0.1], "identity", False),  # by luck: here more, there less
    ],
)
def test_mamba_is_kept_only_where_it_surely_saves_over_a_linear_map(
    mamba: list[float], identity: list[float], kept: str, helped: bool
) -> None:
    found, judged = choose({"mamba": candidate("mamba", mamba), "identity": candidate("identity", identity)})
    assert (found.backbone, judged["network"], judged["mamba_helped"]) == (kept, kept, helped)


def test_a_network_of_which_nothing_is_kept_is_compared_with_nothing_further() -> None:
    tried: list[str] = []

    def train(backbone: str) -> Candidate:
        tried.append(backbone)
        return candidate(backbone, [-0.1, -0.1, -0.2], 0.0)

    kept, judged = choose(train_candidates("auto", train))
    assert tried == ["mamba"]
    assert (kept.network, judged["mamba_helped"]) == ("off", False)


def test_a_saving_is_paired_and_knows_its_error() -> None:
    found = saving(errors([0.3, 0.1, 0.2, 0.2]), 1.0, errors([0.1] * 4), 1.0)
    shares = 1 - np.array([0.7, 0.9, 0.8, 0.8]) / 0.9
    assert found.share == pytest.approx(shares.mean())
    assert found.standard_error == pytest.approx(shares.std(ddof=1) / 2)
    assert (found.stretches, found.sure) == (4, True)
    assert not Saving.of(np.array([0.5])).sure
    assert Saving.of(np.array([0.5])).to_dict()["standard_error"] is None


def test_the_twin_without_a_backbone_is_a_linear_map_of_the_window(hourly: Callable[..., Panel]) -> None:
    """Twice the window around its last value gives twice the change, whatever the weights; a Mamba does not."""
    torch.manual_seed(0)
    config = load_config(network__dropout=0.0)
    for backbone, linear in (("identity", True), ("mamba", False)):
        model = ResidualModel(Shape(48, 6), config.network, 0, backbone).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        for layer in (model.embed, model.head):
            torch.nn.init.zeros_(layer.bias)
        torch.nn.init.zeros_(model.embed.weight[:, 1::2])  # the flags of what was observed count as a constant
        one, other = torch.randn(2, 1, 1, 48)
        seen = torch.ones(1, 1, 48, dtype=torch.bool)

        def added(x: torch.Tensor, model: ResidualModel = model, seen: torch.Tensor = seen) -> torch.Tensor:
            x = x - x[..., -1:]
            none = torch.zeros(1, 1, 54, 0)
            y = torch.zeros(1, 1, 6)
            who = torch.zeros(1, 1, dtype=torch.long)
            batch = Batch(x, seen, y, y > 0, none[:, :, :48], none, none[:, :, 0], who)
            return model.parts(batch)[1]

        whole, parts = added(one + other), added(one) + added(other)
        assert bool(torch.allclose(whole, parts, rtol=1e-3, atol=1e-3)) == linear


def test_the_ablation_is_a_setting(hourly: Callable[..., Panel], tiny: Callable[..., FitConfig]) -> None:
    panel = hourly(300, 1)
    for backbone, networks in (("off", {"off"}), ("identity", {"identity", "off"}), ("mamba", {"mamba", "off"})):
        fitted = fit_panel(panel, 6, tiny("auto", network__backbone=backbone))
        assert fitted.report["network"] in networks
        assert fitted.model.describe()["backbone"] == ("mamba" if backbone == "mamba" else "identity")
    with pytest.raises(UserError, match="needs model=auto"):
        load_config("smamba", network__backbone="identity")
    with pytest.raises(UserError, match="only the model auto"):
        fit_ablation(panel, 6, tiny("ridge"))


def test_auto_is_the_row_of_the_ablation_that_it_takes(
    hourly: Callable[..., Panel], tiny: Callable[..., FitConfig]
) -> None:
    panel, config = hourly(300, 2), tiny("auto")
    rows, alone = fit_ablation(panel, 6, config), fit_panel(panel, 6, config)
    np.testing.assert_array_equal(rows["auto"].predict(panel).point, alone.predict(panel).point)
    off = fit_panel(panel, 6, replace_backbone(config, "off"))
    np.testing.assert_array_equal(rows[OFF].predict(panel).point, off.predict(panel).point)


def replace_backbone(config: FitConfig, backbone: str) -> FitConfig:
    return config.model_copy(update={"network": config.network.model_copy(update={"backbone": backbone})})
