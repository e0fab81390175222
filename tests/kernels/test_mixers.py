"""The mixers' initialisation, and what attention sees."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from mamba_kernels.blocks import Backbone, BackboneConfig, Mixer, build_mixer, mixer_names, register_mixer


def mamba(**changes):
    return build_mixer("mamba", BackboneConfig(**{"d_model": 64, "layers": ["mamba"] * 4, **changes}))


def test_step_sizes_start_log_uniform_between_their_bounds():
    dt = F.softplus(mamba(d_model=2048, dt_rank=4).ssm.dt_proj.bias.detach().double())
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 1e-1 * 1.001
    quartiles = torch.quantile(torch.log10(dt), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(quartiles, torch.tensor([-2.5, -2.0, -1.5], dtype=torch.float64), atol=0.06, rtol=0)


def test_no_step_size_starts_under_the_floor():
    dt = F.softplus(mamba(dt_min=1e-6, dt_max=1e-1, dt_floor=1e-2).ssm.dt_proj.bias.detach())
    assert dt.min() >= 1e-2 * 0.999


def test_decay_rates_start_at_minus_one_to_minus_n_and_skip_at_one():
    ssm = mamba(d_state=5).ssm
    torch.testing.assert_close(-torch.exp(ssm.A_log[7]), -torch.arange(1.0, 6.0))
    assert bool((ssm.D == 1).all())


def test_projection_of_the_step_size_stays_within_its_bound():
    weight = mamba().ssm.dt_proj.weight
    assert weight.abs().max() <= 4**-0.5
    assert weight.abs().max() > 0.9 * 4**-0.5


@pytest.mark.parametrize("name", ["mamba", "mamba2", "s4d", "hyena", "attention"])
def test_output_projection_shrinks_with_the_root_of_the_depth(name):
    weight = build_mixer(name, BackboneConfig(d_model=64, layers=[name] * 16)).out_proj.weight
    bound = 1 / math.sqrt(weight.shape[1]) / 4
    assert 0.9 * bound < weight.abs().max() <= bound


def test_every_pass_of_an_untied_pair_shrinks_with_the_root_of_the_depth():
    mixer = mamba(bidirectional="add", tie_directions=False, layers=["mamba"] * 16)
    assert mixer.out_proj_reverse.weight.abs().max() <= 1 / math.sqrt(128) / 4


def test_exactly_norms_biases_decay_and_skip_are_spared_weight_decay():
    mixer = mamba(proj_bias=True, bidirectional="add", tie_directions=False)
    spared = {name.split(".", 1)[-1] for name, p in mixer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert spared == {"A_log", "D", "conv_bias", "dt_proj.bias", "bias"}


def test_tied_directions_share_exactly_the_projections():
    def count(**changes):
        return sum(p.numel() for p in mamba(bidirectional="add", **changes).parameters())

    projections = 64 * 256 + 128 * 64
    assert count(tie_directions=False) - count(tie_directions=True) == projections


def test_mamba2_starts_as_its_authors_have_it():
    ssm = build_mixer("mamba2", BackboneConfig(d_model=2048, layers=["mamba2"], head_width=1)).ssm
    rates = ssm.A_log.detach().double().exp()
    assert 1 <= rates.min() < 1.1
    assert 15.9 < rates.max() <= 16
    assert abs(rates.mean() - 8.5) < 0.3
    dt = F.softplus(ssm.dt_bias.detach().double())
    quartiles = torch.quantile(torch.log10(dt), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(quartiles, torch.tensor([-2.5, -2.0, -1.5], dtype=torch.float64), atol=0.06, rtol=0)
    assert bool((ssm.D == 1).all())


def test_mamba2_spares_norm_biases_decay_and_skip_weight_decay():
    mixer = build_mixer("mamba2", BackboneConfig(d_model=64, layers=["mamba2"], proj_bias=True))
    spared = {name.split(".", 1)[-1] for name, p in mixer.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert spared == {"A_log", "D", "conv_bias", "dt_bias", "norm_weight", "bias"}


def test_s4d_starts_as_s4d_lin():
    ssm = build_mixer("s4d", BackboneConfig(d_model=1024, layers=["s4d"], d_state=8)).ssm
    torch.testing.assert_close(-torch.exp(ssm.A_log[3]), torch.full((4,), -0.5))
    torch.testing.assert_close(ssm.A_imag[3], math.pi * torch.arange(4.0))
    quartiles = torch.quantile(ssm.log_dt.detach() / math.log(10), torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([-2.5, -2.0, -1.5]), atol=0.06, rtol=0)
    assert abs(float(ssm.C.detach().square().sum(-1).mean()) - 1) < 0.1
    spared = {name for name, p in ssm.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert spared == {"log_dt", "A_log", "A_imag", "D"}


def naive_attention(mixer, x, causal):
    """Softmax attention with rotary positions, one query and one head at a time."""
    heads, width = mixer.n_heads, mixer.head_width
    batch, length, _ = x.shape
    qkv = F.linear(x, mixer.qkv_proj.weight).view(batch, length, 3, heads, width)
    half = width // 2
    rate = torch.tensor([10_000.0 ** (-i / half) for i in range(half)], dtype=torch.float64)

    def rotate(vector, position):
        turned = torch.complex(vector[:half].double(), vector[half:].double()) * torch.exp(1j * position * rate)
        return torch.cat([turned.real, turned.imag]).to(x.dtype)

    y = torch.zeros(batch, length, heads, width, dtype=x.dtype)
    for b in range(batch):
        for h in range(heads):
            keys = torch.stack([rotate(qkv[b, t, 1, h], t) for t in range(length)])
            for t in range(length):
                end = t + 1 if causal else length
                scores = keys[:end] @ rotate(qkv[b, t, 0, h], t) / math.sqrt(width)
                y[b, t, h] = torch.softmax(scores, dim=0) @ qkv[b, :end, 2, h]
    return F.linear(y.reshape(batch, length, -1), mixer.out_proj.weight)


@pytest.mark.parametrize("bidirectional", ["none", "add"])
def test_attention_is_what_its_definition_says(bidirectional):
    config = BackboneConfig(d_model=24, layers=["attention"], n_heads=3, bidirectional=bidirectional)
    mixer = build_mixer("attention", config).double()
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    expected = naive_attention(mixer, x, causal=bidirectional == "none")
    torch.testing.assert_close(mixer.mix(x, None, None)[0], expected)


def test_a_new_mixer_can_be_named_in_a_pattern(monkeypatch):
    monkeypatch.setattr("mamba_kernels.blocks.registry._MIXERS", {})
    monkeypatch.setattr("mamba_kernels.blocks.names._NAMES", set())

    @register_mixer("still")
    class Still(Mixer):
        def __init__(self, config):
            super().__init__()

        def branches(self):
            return ()

        def mix(self, x, state, reset):
            return torch.zeros_like(x), ()

        def step(self, x, state):
            return torch.zeros_like(x), state

    assert mixer_names() == ("still",)
    assert isinstance(build_mixer("still", BackboneConfig(d_model=4, layers=["still"])), Still)
    with pytest.raises(ValueError, match="'still' is registered already"):
        register_mixer("still")(type("Other", (Still,), {}))


@pytest.mark.parametrize("chunk_size", [None, 16])
@pytest.mark.parametrize("name", ["mamba", "mamba2", "s4d", "hyena", "attention"])
def test_every_mixer_trains_under_autocast_with_states_in_float32(name, chunk_size):
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(d_model=32, layers=[name] * 2, d_state=8, chunk_size=chunk_size))
    x, weight = torch.randn(2, 40, 32), torch.randn(2, 40, 32)
    found = []
    for enabled in (False, True):
        backbone.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y, _ = backbone(x)
        (y.float() * weight).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])
        found.append(torch.cat([y.detach().float().flatten(), gradients / gradients.abs().max()]))
    difference = (found[1] - found[0]).abs()
    assert 0 < difference.max() < 0.15  # products rounded to bfloat16 differ, but not by much
    assert difference.mean() < 0.01


@pytest.mark.parametrize("chunk_size", [None, 16])
@pytest.mark.parametrize("name", ["mamba", "mamba2", "s4d", "attention"])
def test_a_backward_pass_inside_of_autocast_gives_what_it_gives_outside(name, chunk_size, monkeypatch):
    monkeypatch.setattr("mamba_kernels.blocks.backbone.AUTO_STREAM_BYTES", 0)  # chunks through the whole stack
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(d_model=32, layers=[name] * 2, d_state=8, chunk_size=chunk_size))
    x, found = torch.randn(2, 40, 32), []
    for inside in (False, True):
        backbone.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = backbone(x)[0].float().square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        found.append([parameter.grad for parameter in backbone.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-4)
