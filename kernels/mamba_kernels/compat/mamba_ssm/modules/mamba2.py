"""The Mamba-2 block under mamba-ssm's names.

Legend: B batch, L length, M width of the model, D inner channels in H heads of P, G groups, N states, K taps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mamba_kernels import causal_conv1d, ssd_update
from mamba_kernels.compat.causal_conv1d import causal_conv1d_update
from mamba_kernels.compat.mamba_ssm.modules.states import advance_inputs, kept_states, run_each_sequence, wide
from mamba_kernels.compat.mamba_ssm.ops.triton.layernorm_gated import RMSNorm as RMSNormGated
from mamba_kernels.compat.mamba_ssm.ops.triton.ssd_combined import NO_LIMIT, mamba_chunk_scan_combined
from mamba_kernels.compat.packed import reset_of


class Mamba2(nn.Module):
    """A Mamba-2 block (Dao and Gu 2024, arXiv:2405.21060): weights, initialisation and states as in mamba-ssm 2.

    Args:
        d_model: M.
        d_state: N.
        d_conv: K.
        conv_init: Bound of the convolution's weights; None for torch's own.
        expand: D / M.
        headdim: P.
        d_ssm: Channels that are scanned; the rest of D is a gated MLP. None scans all.
        ngroups: G.
        A_init_range: Between which the decay rates are drawn.
        D_has_hdim: Whether the skip connection has a weight for each channel instead of each head.
        rmsnorm: Whether the output is normed, and not gated alone.
        norm_before_gate: Whether the norm comes before the gate.
        dt_min: Least step size drawn.
        dt_max: Greatest step size drawn.
        dt_init_floor: Bound of the step sizes drawn.
        dt_limit: Between which step sizes are clamped.
        bias: Whether the projections have a bias.
        conv_bias: Whether the convolution has.
        chunk_size: Positions taken together; of no influence on the result.
        use_mem_eff_path: Of no influence: there is one path.
        layer_idx: Under which its states lie in `InferenceParams`.
        process_group: Must be None: one block is not split over ranks here.
        sequence_parallel: Of no influence without a process group.
        device: Of the weights.
        dtype: Of the weights.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float | int = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float | int, float | int] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = NO_LIMIT,
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group: Any = None,
        sequence_parallel: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.d_model, self.d_state, self.d_conv, self.conv_init = d_model, d_state, d_conv, conv_init
        self.expand, self.headdim, self.ngroups = expand, headdim, ngroups
        self.d_inner = int(expand * d_model)
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        self.nheads = self.d_ssm // headdim
        self.D_has_hdim, self.rmsnorm, self.norm_before_gate = D_has_hdim, rmsnorm, norm_before_gate
        self.dt_limit, self.chunk_size, self.use_mem_eff_path = dt_limit, chunk_size, use_mem_eff_path
        self.layer_idx, self.process_group, self.sequence_parallel = layer_idx, process_group, sequence_parallel
        self.activation = "silu"
        self._check(A_init_range)
        shared = 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner + shared + self.nheads, bias=bias, **made)
        mixed = self.d_ssm + shared
        self.conv1d = nn.Conv1d(mixed, mixed, d_conv, groups=mixed, padding=d_conv - 1, bias=conv_bias, **made)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.act = nn.SiLU()
        spread = math.log(dt_max) - math.log(dt_min)
        dt = torch.exp(torch.rand(self.nheads, **made) * spread + math.log(dt_min)).clamp(min=dt_init_floor)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        rates = torch.empty(self.nheads, dtype=torch.float32, device=device).uniform_(*A_init_range)
        self.A_log = nn.Parameter(rates.log().to(dtype))
        self.D = nn.Parameter(torch.ones(self.d_ssm if D_has_hdim else self.nheads, device=device))
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        if rmsnorm:
            group = self.d_ssm // ngroups
            self.norm = RMSNormGated(self.d_ssm, 1e-5, group_size=group, norm_before_gate=norm_before_gate, **made)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **made)

    def _check(self, A_init_range: tuple[float | int, float | int]) -> None:
        if self.process_group is not None:
            raise NotImplementedError("Mamba2: process_group is not supported; train over ranks with DDP or FSDP")
        if self.d_ssm % self.headdim or self.nheads % self.ngroups:
            raise ValueError(
                f"Mamba2: headdim {self.headdim} must divide {self.d_ssm} scanned channels into heads that"
                f" {self.ngroups} groups share evenly, found {self.d_ssm / self.headdim:g} heads"
            )
        if not 0 < A_init_range[0] <= A_init_range[1]:
            raise ValueError(f"Mamba2: A_init_range must be two positive numbers in order, found {A_init_range}")

    def forward(
        self,
        u: Tensor,
        seqlen: int | None = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: Any = None,
    ) -> Tensor:
        """Mix (B, L, M) along L.

        Args:
            u: (B, L, M), or (B L, M) with `seqlen`.
            seqlen: L.
            seq_idx: (B, L) integers that number packed sequences.
            cu_seqlens: (S + 1,), where packed sequences begin, and the end; with `inference_params` a single row's,
                each of which gets states of its own.
            inference_params: Where states are kept and, from the second call on, taken from.

        Returns:
            As u.
        """
        if seqlen is not None:
            return self(u.unflatten(0, (-1, seqlen)), None, seq_idx, cu_seqlens, inference_params).flatten(0, 1)
        batch, length, _ = u.shape
        states, begun = None, False
        if inference_params is not None:
            begun = inference_params.seqlen_offset > 0
            if cu_seqlens is not None and not begun:
                return run_each_sequence(self, u, inference_params, cu_seqlens)
            states = self._get_states_from_cache(inference_params, batch)
            if begun and length == 1:
                return self.step(u, *states)[0]
        mlp_gate, mlp, z, xbc, dt = self._split(self.in_proj(u))
        conv_state, ssm_state = (None, None) if states is None else states
        before = None if conv_state is None else advance_inputs(conv_state, xbc, begun)
        reset = reset_of("Mamba2", seq_idx, cu_seqlens, batch, length)
        taps = self.conv1d.weight.squeeze(1)
        x, b, c = self._heads(causal_conv1d(xbc, taps, self.conv1d.bias, "silu", initial_state=before, reset=reset))
        found = mamba_chunk_scan_combined(
            *(x, dt, self._decay_rates(), b, c, self.chunk_size, self._skip(), self._gate(z), wide(self.dt_bias)),
            initial_states=ssm_state if begun else None,
            seq_idx=seq_idx,
            cu_seqlens=cu_seqlens,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            return_final_states=True,
        )
        if ssm_state is not None:
            ssm_state.copy_(found[1])
        return self.out_proj(self._finish(found[0], z, mlp_gate, mlp))

    def step(self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mix one token (B, 1, M) into the states and overwrite them: (B, D + 2 G N, K) and (B, H, P, N).

        Returns:
            (B, 1, M), and the states.

        Raises:
            ValueError: There is more than one token.
        """
        if hidden_states.shape[1] != 1:
            raise ValueError(f"Mamba2.step: hidden_states must hold one token, found {hidden_states.shape[1]}")
        mlp_gate, mlp, z, xbc, dt = self._split(self.in_proj(hidden_states.squeeze(1)))
        taps = self.conv1d.weight.squeeze(1)
        x, b, c = self._heads(causal_conv1d_update(xbc, conv_state, taps, self.conv1d.bias, "silu"))
        bias, softplus = wide(self.dt_bias), True
        if tuple(map(float, self.dt_limit)) != NO_LIMIT:
            dt, bias, softplus = F.softplus(wide(dt) + bias).clamp(*self.dt_limit), None, False
        y, new = ssd_update(
            ssm_state.clone(), x, dt, self._decay_rates(), b, c, self._skip(), self._gate(z), bias, softplus
        )
        ssm_state.copy_(new)
        return self.out_proj(self._finish(y, z, mlp_gate, mlp)).unsqueeze(1), conv_state, ssm_state

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """An MLP's gates and channels, gates, what is convolved, and step sizes."""
        mlp = self.d_inner - self.d_ssm
        mlp_gate, mlp_x, z, xbc, dt = projected.split(
            [mlp, mlp, self.d_ssm, self.d_ssm + 2 * self.ngroups * self.d_state, self.nheads], dim=-1
        )
        return mlp_gate, mlp_x, z, xbc, dt

    def _heads(self, xbc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x` (..., H, P), `B` and `C` (..., G, N)."""
        shared = self.ngroups * self.d_state
        x, b, c = xbc.split([self.d_ssm, shared, shared], dim=-1)
        groups = (self.ngroups, self.d_state)
        return x.unflatten(-1, (self.nheads, self.headdim)), b.unflatten(-1, groups), c.unflatten(-1, groups)

    def _decay_rates(self) -> Tensor:
        """`A` (H,), negative, in at least float32."""
        return -torch.exp(wide(self.A_log))

    def _skip(self) -> Tensor:
        return self.D.unflatten(0, (-1, self.headdim)) if self.D_has_hdim else self.D

    def _gate(self, z: Tensor) -> Tensor | None:
        """The gate by heads, where no norm takes it in."""
        return None if self.rmsnorm else z.unflatten(-1, (self.nheads, self.headdim))

    def _finish(self, y: Tensor, z: Tensor, mlp_gate: Tensor, mlp: Tensor) -> Tensor:
        """Norm and gate (..., H, P), and put the MLP's channels before: (..., D)."""
        y = y.flatten(-2)
        if self.rmsnorm:
            y = self.norm(y, z)
        return torch.cat([F.silu(mlp_gate) * mlp, y], dim=-1) if mlp.shape[-1] else y

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the states before the first token: (B, D + 2 G N, K) and (B, H, P, N), zeros."""
        weight = self.conv1d.weight
        conv_state = weight.new_zeros(batch_size, self.d_conv, weight.shape[0], dtype=dtype).transpose(1, 2)
        shape = (batch_size, self.nheads, self.headdim, self.d_state)
        return conv_state, self.in_proj.weight.new_zeros(shape, dtype=dtype)

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return this layer's states, made if need be."""
        return kept_states(self, inference_params, batch_size, initialize_states)
