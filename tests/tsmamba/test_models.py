"""Every model keeps its promises: shapes, masks, ordered quantiles, equivariance, and streams equal to reruns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tsmamba.config import FitConfig
from tsmamba.fitting.modules import pinball_loss, point_loss
from tsmamba.networks import CausalModel, ForecastModel, Shape, build_model
from tsmamba.networks.base import last_observed
from tsmamba.networks.linear import Matrices
from tsmamba.networks.residual import patches
from tsmamba.panel.windows import Batch

SHAPE = Shape(lookback=20, horizon=6, channels=3, n_past=2, n_future=3, n_static=1)
MODELS = ("ridge", "auto", "smamba", "tsmamba", "causal")


def random_batch(seed: int = 0, rows: int = 4, shape: Shape = SHAPE) -> Batch:
    made = torch.Generator().manual_seed(seed)
    b, m, lookback, horizon = rows, shape.channels, shape.lookback, shape.horizon
    seen = torch.rand(b, m, lookback, generator=made) > 0.2
    seen[..., -1] = True
    return Batch(
        torch.randn(b, m, lookback, generator=made) * seen,
        seen,
        torch.randn(b, m, horizon, generator=made),
        torch.rand(b, m, horizon, generator=made) > 0.2,
        torch.randn(b, m, lookback, shape.n_past, generator=made),
        torch.randn(b, m, lookback + horizon, shape.n_future, generator=made),
        torch.randn(b, m, shape.n_static, generator=made),
        torch.arange(m).expand(b, m),
    )


def trained(name: str, config: FitConfig) -> ForecastModel:
    """A model with random weights everywhere, those that begin at zero too."""
    torch.manual_seed(0)
    model = build_model(config, SHAPE, {"n_own": 2})
    for tensor in model.state_dict().values():
        if tensor.ndim > 1 and not tensor.any():
            tensor.normal_(0, 0.1)
    model.offsets.copy_(torch.randn(SHAPE.horizon, SHAPE.n_levels).sort(dim=-1).values)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_forecast_has_its_shape_and_quantiles_in_order(name: str, tiny: Callable[..., FitConfig]) -> None:
    model = trained(name, tiny(name, lookback=20))
    batch = random_batch()
    output = model(batch)
    assert output.point.shape == batch.y.shape
    assert output.quantiles.shape == (*batch.y.shape, 5)
    assert bool((output.quantiles.diff(dim=-1) >= 0).all())
    torch.testing.assert_close(model.point(batch), output.point)


@pytest.mark.parametrize("name", MODELS)
def test_what_was_not_observed_and_what_comes_next_have_no_influence(name: str, tiny: Callable[..., FitConfig]) -> None:
    model = trained(name, tiny(name, lookback=20))
    batch = random_batch()
    filled = batch._replace(x=torch.where(batch.seen, batch.x, 99.0), y=batch.y + 1, known=~batch.known)
    torch.testing.assert_close(model.point(filled), model.point(batch))


@pytest.mark.parametrize("name", MODELS)
def test_a_window_is_forecast_the_same_whatever_else_is_in_the_batch(name: str, tiny: Callable[..., FitConfig]) -> None:
    model = trained(name, tiny(name, lookback=20))
    batch = random_batch()
    alone = Batch(*(part[1:2] for part in batch))
    torch.testing.assert_close(model.point(alone), model.point(batch)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ridge", "auto", "smamba", "tsmamba"])
def test_a_shift_of_the_level_shifts_the_forecast(name: str, tiny: Callable[..., FitConfig]) -> None:
    model = trained(name, tiny(name, lookback=20))
    batch = random_batch()
    shifted = batch._replace(x=(batch.x + 3) * batch.seen)
    torch.testing.assert_close(model.point(shifted), model.point(batch) + 3, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["auto", "causal"])
def test_training_starts_from_the_simple_forecast(name: str, tiny: Callable[..., FitConfig]) -> None:
    model = build_model(tiny(name, lookback=20), SHAPE).eval()
    batch = random_batch()
    torch.testing.assert_close(model.point(batch), last_observed(batch.x, batch.seen).expand_as(batch.y))


@pytest.mark.parametrize("part", ["past", "future", "static"])
def test_covariates_matter(part: str, tiny: Callable[..., FitConfig]) -> None:
    model = trained("auto", tiny(lookback=20))
    batch = random_batch()
    other = batch._replace(**{part: getattr(batch, part) + 1})
    assert not torch.allclose(model.point(other), model.point(batch))


def test_a_causal_model_fed_row_by_row_gives_what_it_gives_for_the_whole(tiny: Callable[..., FitConfig]) -> None:
    model = trained("causal", tiny("causal", lookback=20))
    assert isinstance(model, CausalModel)
    batch = random_batch()
    whole = model.every_row(batch).flatten(0, 1)
    state = model.initial_state(len(whole))
    static = batch.static[:, :, None].expand(-1, -1, SHAPE.lookback, -1)
    outside = torch.cat([batch.past, batch.future[:, :, : SHAPE.lookback], static], dim=-1).flatten(0, 1)
    x, seen = batch.x.flatten(0, 1), batch.seen.flatten(0, 1)
    for row in range(SHAPE.lookback):
        output, state = model.step(x[:, row], seen[:, row], outside[:, row], state)
        torch.testing.assert_close(output.point[:, 0], whole[:, row], rtol=1e-4, atol=1e-5)


def test_a_causal_forecast_does_not_see_later_rows(tiny: Callable[..., FitConfig]) -> None:
    model = trained("causal", tiny("causal", lookback=20))
    assert isinstance(model, CausalModel)
    batch = random_batch()
    x = batch.x.clone()
    x[..., 12:] += 5
    before, after = model.every_row(batch), model.every_row(batch._replace(x=x))
    torch.testing.assert_close(after[:, :, :12], before[:, :, :12])
    assert not torch.allclose(after[:, :, 12], before[:, :, 12])


def test_each_series_is_forecast_by_its_own_matrix_and_strangers_by_the_common_one() -> None:
    matrices = Matrices(3, 2, n_own=2)
    matrices.set(torch.ones(3, 2), {0: 2 * torch.ones(3, 2), 1: 3 * torch.ones(3, 2)})
    z = torch.ones(1, 3, 3)
    torch.testing.assert_close(matrices(z, torch.tensor([[1, -1, 0]]))[0, :, 0], torch.tensor([9.0, 3.0, 6.0]))


def test_patches_end_with_the_last_row() -> None:
    rows = torch.arange(1.0, 6.0)[None]
    assert patches(rows, 2).tolist() == [[[0, 1], [2, 3], [4, 5]]]
    columns = torch.stack([rows, -rows], dim=-1)
    assert patches(columns, 2)[0, -1].tolist() == [4, -4, 5, -5]


def test_the_last_observed_value_is_found() -> None:
    x = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    seen = torch.tensor([[True, True, False], [False, False, False]])
    assert last_observed(x, seen).tolist() == [[2.0], [0.0]]


@pytest.mark.parametrize(("kind", "expected"), [("mse", 5.0), ("mae", 2.0), ("huber", 1.75)])
def test_losses_skip_what_is_unknown(kind: str, expected: float) -> None:
    error = torch.tensor([[1.0, 100.0, -3.0]])
    known = torch.tensor([[True, False, True]])
    assert float(point_loss(kind, error, known)) == pytest.approx(expected)


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    y = torch.arange(1.0, 100.0)[:, None]
    at = [float(pinball_loss(torch.full((99, 1, 1), q), y, y > 0, torch.tensor([0.9]))) for q in (80.0, 90.0, 95.0)]
    assert at[1] < min(at[0], at[2])
