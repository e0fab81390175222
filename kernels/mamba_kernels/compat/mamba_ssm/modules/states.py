"""What mixers keep between calls in `InferenceParams`, and how packed sequences each get states of their own.

Legend: B batch, L length, M width of the model, D convolved channels, K taps, S packed sequences.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is that."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def kept_states(mixer: Any, inference_params: Any, batch_size: int, renew: bool) -> tuple[Tensor, Tensor]:
    """Return the states of a mixer, made by its `allocate_inference_cache` if need be, zeroed if `renew`.

    Raises:
        ValueError: The mixer has no number to keep them under, or they are of another number of rows.
    """
    name, kept = type(mixer).__name__, inference_params.key_value_memory_dict
    if mixer.layer_idx is None:
        raise ValueError(f"{name}: generation needs layer_idx in the constructor, under which states are kept")
    if mixer.layer_idx not in kept:
        kept[mixer.layer_idx] = mixer.allocate_inference_cache(batch_size, inference_params.max_seqlen)
    states = kept[mixer.layer_idx]
    if states[0].shape[0] != batch_size:
        raise ValueError(
            f"{name}: the states kept for layer {mixer.layer_idx} are of {states[0].shape[0]} rows, the input has"
            f" {batch_size}; take another InferenceParams for another batch"
        )
    for state in states if renew else ():
        state.zero_()
    return states


def advance_inputs(conv_state: Tensor, x: Tensor, begun: bool) -> Tensor | None:
    """Overwrite a convolution's state (B, D, K) with the last inputs of x (B, L, D).

    Returns:
        The inputs (B, D, K - 1) before x, or None where it has none before it.
    """
    taps, tokens = conv_state.shape[2], x.transpose(1, 2)
    before = conv_state[:, :, 1:].clone() if begun else None
    past = F.pad(tokens, (taps, 0)) if not begun else torch.cat([conv_state, tokens.to(conv_state.dtype)], dim=2)
    conv_state.copy_(past[:, :, -taps:])
    return before


def run_each_sequence(mixer: Any, hidden_states: Tensor, inference_params: Any, cu_seqlens: Tensor) -> Tensor:
    """Run packed sequences of one row (1, L, M) one after another, each into its own row of the mixer's states.

    Returns:
        (1, L, M); zeros at positions that belong to no sequence.

    Raises:
        ValueError: There is more than one row.
    """
    if hidden_states.shape[0] != 1:
        raise ValueError(f"cu_seqlens with inference_params needs a batch of 1, found {hidden_states.shape[0]} rows")
    bounds = cu_seqlens.tolist()
    states = mixer._get_states_from_cache(inference_params, len(bounds) - 1)
    out = torch.zeros_like(hidden_states)
    for row, (start, end) in enumerate(itertools.pairwise(bounds)):
        own = tuple(state[row : row + 1] for state in states)
        params = SimpleNamespace(key_value_memory_dict={mixer.layer_idx: own}, seqlen_offset=0)
        if end > start:
            out[:, start:end] = mixer(hidden_states[:, start:end], inference_params=params)
        else:
            mixer._get_states_from_cache(params, 1, initialize_states=True)
    return out
