"""The Mamba block under mamba-ssm's names, with the second direction that Vision Mamba's fork of it added.

Legend: B batch, L length, M width of the model, D inner channels, N states, K taps, R rank of the step size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mamba_kernels import causal_conv1d, selective_scan
from mamba_kernels.compat.causal_conv1d import causal_conv1d_update
from mamba_kernels.compat.mamba_ssm.modules.states import advance_inputs, kept_states, run_each_sequence, wide
from mamba_kernels.compat.mamba_ssm.ops.triton.selective_state_update import selective_state_update
from mamba_kernels.compat.packed import reset_of

TWO_WAYS = ("none", "v1", "v2")
"""One direction; both with the same channels and step sizes; both, each with its own."""


class Mamba(nn.Module):
    """A Mamba block (Gu and Dao 2023, arXiv:2312.00752): weights, initialisation and states as in mamba-ssm 2.

    Args:
        d_model: M.
        d_state: N.
        d_conv: K.
        expand: D / M.
        dt_rank: R, "auto" for M / 16.
        dt_min: Least step size drawn.
        dt_max: Greatest step size drawn.
        dt_init: "random" or "constant", how the projection of step sizes is drawn.
        dt_scale: Factor of that projection.
        dt_init_floor: Bound of the step sizes drawn.
        conv_bias: Whether the convolution has a bias.
        bias: Whether the projections have.
        use_fast_path: Of no influence: there is one path.
        layer_idx: Under which its states lie in `InferenceParams`.
        device: Of the weights.
        dtype: Of the weights; `A_log` and `D` are float32.
        bimamba_type: One of `TWO_WAYS`, as Vision Mamba has it.
        if_divide_out: Whether "v2" takes the mean of both directions instead of their sum.
        init_layer_scale: First value of a factor for each channel of the output; None for no factor.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float | int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        bimamba_type: str | None = "none",
        if_divide_out: bool = False,
        init_layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise NotImplementedError(f"Mamba: dt_init must be 'random' or 'constant', found {dt_init!r}")
        if (bimamba_type or "none") not in TWO_WAYS:
            raise ValueError(f"Mamba: bimamba_type must be one of {', '.join(TWO_WAYS)}, found {bimamba_type!r}")
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if isinstance(dt_rank, str) else dt_rank
        self.use_fast_path, self.layer_idx = use_fast_path, layer_idx
        self.bimamba_type, self.if_divide_out = bimamba_type or "none", if_divide_out
        self.init_layer_scale = init_layer_scale
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(init_layer_scale * torch.ones(d_model, device=device))
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, **made)
        self.conv1d, self.x_proj, self.dt_proj = self._selection(conv_bias, made)
        self.activation = "silu"
        self.act = nn.SiLU()
        self._draw_step_sizes(dt_init, dt_scale, (dt_min, dt_max, dt_init_floor), made)
        self.A_log, self.D = self._rates(device)
        if self.bimamba_type != "none":
            self.A_b_log, skip = self._rates(device)
            if self.bimamba_type == "v2":
                self.conv1d_b, self.x_proj_b, self.dt_proj_b = self._selection(conv_bias, made)
                self.D_b = skip
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **made)

    def _selection(self, conv_bias: bool, made: dict[str, Any]) -> tuple[nn.Conv1d, nn.Linear, nn.Linear]:
        """The convolution, and the projections that give step sizes, B and C."""
        width, taps = self.d_inner, self.d_conv
        conv = nn.Conv1d(width, width, taps, groups=width, padding=taps - 1, bias=conv_bias, **made)
        x_proj = nn.Linear(width, self.dt_rank + 2 * self.d_state, bias=False, **made)
        return conv, x_proj, nn.Linear(self.dt_rank, width, bias=True, **made)

    @torch.no_grad()
    def _draw_step_sizes(
        self, dt_init: str, dt_scale: float, sizes: tuple[float, float, float], made: dict[str, Any]
    ) -> None:
        """Section 3.6 of the paper: step sizes log-uniform between two sizes, not below a third."""
        bound = self.dt_rank**-0.5 * dt_scale
        if dt_init == "constant":
            nn.init.constant_(self.dt_proj.weight, bound)
        else:
            nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        low, high, floor = sizes
        spread = math.log(high) - math.log(low)
        dt = torch.exp(torch.rand(self.d_inner, **made) * spread + math.log(low)).clamp(min=floor)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.dt_proj.bias._no_reinit = True  # pyright: ignore[reportAttributeAccessIssue]

    def _rates(self, device: torch.device | str | None) -> tuple[nn.Parameter, nn.Parameter]:
        """`A_log` (D, N) and the skip connection `D` (D,), in float32, spared by weight decay."""
        steps = torch.arange(1, self.d_state + 1, dtype=torch.float32, device=device)
        rates = nn.Parameter(steps.log().repeat(self.d_inner, 1))
        skip = nn.Parameter(torch.ones(self.d_inner, device=device))
        for parameter in (rates, skip):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        return rates, skip

    def forward(
        self,
        hidden_states: Tensor,
        inference_params: Any = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        """Mix (B, L, M) along L.

        Args:
            hidden_states: (B, L, M).
            inference_params: Where states are kept and, from the second call on, taken from.
            seq_idx: (B, L) integers that number packed sequences; mamba-ssm's block does not have it.
            cu_seqlens: (S + 1,), another way to tell where sequences begin.

        Returns:
            (B, L, M).
        """
        batch, length, _ = hidden_states.shape
        states, begun = None, False
        if inference_params is not None:
            self._refuse_two_ways("inference_params")
            begun = inference_params.seqlen_offset > 0
            if cu_seqlens is not None and not begun:
                return run_each_sequence(self, hidden_states, inference_params, cu_seqlens)
            states = self._get_states_from_cache(inference_params, batch)
            if begun and length == 1:
                return self.step(hidden_states, *states)[0]
        reset = reset_of("Mamba", seq_idx, cu_seqlens, batch, length)
        x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
        y = self._scan(x, z, states, reset, begun)
        if self.bimamba_type != "none":
            y = y + self._scan_back(x, z, reset)
            y = y / 2 if self.bimamba_type == "v2" and self.if_divide_out else y
        out = self.out_proj(y)
        return out if self.init_layer_scale is None else out * self.gamma

    def _scan(
        self, x: Tensor, z: Tensor, states: tuple[Tensor, Tensor] | None, reset: Tensor | None, begun: bool
    ) -> Tensor:
        """From left to right, (B, L, D) to (B, L, D); states are overwritten, and gone on from if they have begun."""
        conv_state, ssm_state = states if states is not None else (None, None)
        before = None if conv_state is None else advance_inputs(conv_state, x, begun)
        taps = self.conv1d.weight.squeeze(1)
        x = causal_conv1d(x, taps, self.conv1d.bias, "silu", initial_state=before, reset=reset)
        delta, b, c = self._select(x, self.x_proj, self.dt_proj)
        y, last = selective_scan(
            *(x, delta, self._decay_rates(self.A_log), b, c, wide(self.D), z, wide(self.dt_proj.bias), True),
            initial_state=ssm_state if begun else None,
            reset=reset,
            return_final_state=True,
        )
        if ssm_state is not None:
            ssm_state.copy_(last)
        return y

    def _scan_back(self, x: Tensor, z: Tensor, reset: Tensor | None) -> Tensor:
        """From right to left; `v1` scans the channels of the way there, `v2` has weights of its own for all."""
        from_right = None if reset is None else torch.cat([reset[:, 1:], reset.new_ones(reset.shape[0], 1)], dim=1)
        if self.bimamba_type == "v1":
            x = causal_conv1d(x, self.conv1d.weight.squeeze(1), self.conv1d.bias, "silu", reset=reset)
            x_proj, dt_proj, skip = self.x_proj, self.dt_proj, self.D
        else:
            taps = self.conv1d_b.weight.squeeze(1)
            x = causal_conv1d(x, taps, self.conv1d_b.bias, "silu", reset=from_right, reverse=True)
            x_proj, dt_proj, skip = self.x_proj_b, self.dt_proj_b, self.D_b
        delta, b, c = self._select(x, x_proj, dt_proj)
        rates, bias = self._decay_rates(self.A_b_log), wide(dt_proj.bias)
        return selective_scan(x, delta, rates, b, c, wide(skip), z, bias, True, reset=from_right, reverse=True)

    def _select(self, x: Tensor, x_proj: nn.Linear, dt_proj: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes before their bias (..., D), B and C (..., N)."""
        dt, b, c = x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        # Row-major on purpose: the gradient of so narrow a matrix is then several times faster on the CPU.
        return dt @ dt_proj.weight.t().contiguous(), b, c

    @staticmethod
    def _decay_rates(logarithm: Tensor) -> Tensor:
        """`A` (D, N), negative, in at least float32."""
        return -torch.exp(wide(logarithm))

    def step(self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mix one token (B, 1, M) into the states and overwrite them: conv_state (B, D, K), ssm_state (B, D, N).

        Returns:
            (B, 1, M), and the states.

        Raises:
            ValueError: There is more than one token, or the block runs in both directions.
        """
        self._refuse_two_ways("step")
        if hidden_states.shape[1] != 1:
            raise ValueError(f"Mamba.step: hidden_states must hold one token, found {hidden_states.shape[1]}")
        x, z = self.in_proj(hidden_states.squeeze(1)).chunk(2, dim=-1)
        x = causal_conv1d_update(x, conv_state, self.conv1d.weight.squeeze(1), self.conv1d.bias, "silu")
        delta, b, c = self._select(x, self.x_proj, self.dt_proj)
        rates, bias = self._decay_rates(self.A_log), self.dt_proj.bias
        y = selective_state_update(ssm_state, x, delta, rates, b, c, self.D, z, bias, dt_softplus=True)
        out = self.out_proj(y)
        out = out if self.init_layer_scale is None else out * self.gamma
        return out.unsqueeze(1), conv_state, ssm_state

    def _refuse_two_ways(self, what: str) -> None:
        if self.bimamba_type != "none":
            raise ValueError(f"Mamba: {what} goes from left to right; bimamba_type is {self.bimamba_type!r}")

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the states before the first token: (B, D, K) and (B, D, N), zeros."""
        weight = self.conv1d.weight
        return (
            weight.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype),
            weight.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype),
        )

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return this layer's states, made if need be."""
        return kept_states(self, inference_params, batch_size, initialize_states)
