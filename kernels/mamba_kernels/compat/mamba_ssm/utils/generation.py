"""Generation token by token, greedy or sampled, and what a model carries between tokens, as mamba-ssm has them.

Legend: B batch, L length, V vocabulary.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class InferenceParams:
    """What a model's layers carry from call to call.

    Attributes:
        max_seqlen: Positions that attention layers make room for.
        max_batch_size: Rows at most.
        seqlen_offset: Tokens that the states have seen; 0 lets layers begin anew.
        batch_size_offset: First row of attention's memory that is used.
        key_value_memory_dict: States by layer.
        lengths_per_sample: (B,) positions of each row, where they differ.
    """

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict[Any, Any] = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        """Begin anew, with room for so many positions and rows; states stay where they are and are overwritten."""
        self.max_seqlen, self.max_batch_size, self.seqlen_offset = max_seqlen, max_batch_size, 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


@dataclass
class GenerateDecoderOnlyOutput:
    """What generation gives.

    Attributes:
        sequences: (B, L), the prompt and what follows it.
        scores: Logits (B, V) of each new token; None unless asked for.
    """

    sequences: Tensor
    scores: tuple[Tensor, ...] | None = None

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def modify_logits_for_min_p_filtering(logits: Tensor, min_p: float) -> None:
    """Set logits (B, V) below `min_p` to -inf, in place; nothing unless 0 < min_p < 1."""
    if 0.0 < min_p < 1.0:
        logits.masked_fill_(logits < min_p, -torch.inf)


def modify_logits_for_top_k_filtering(logits: Tensor, top_k: int) -> None:
    """Set all but the `top_k` largest logits of each row (B, V) to -inf, in place."""
    logits.masked_fill_(logits < logits.topk(top_k).values[..., -1:], -torch.inf)


def modify_logits_for_top_p_filtering(logits: Tensor, top_p: float) -> None:
    """Keep the likeliest tokens of each row (B, V) whose probabilities reach `top_p`, the others -inf, in place."""
    if not 0.0 < top_p < 1.0:
        return
    ordered, places = logits.sort(dim=-1)
    dropped = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
    logits.masked_fill_(dropped.scatter(-1, places, dropped), -torch.inf)


def modify_logit_for_repetition_penalty(
    logits: Tensor, prev_output_tokens: Tensor, repetition_penalty: float = 1.0
) -> Tensor:
    """Make tokens (B, L) that were there before less likely, in place (Keskar et al. 2019, section 4.1)."""
    if repetition_penalty == 1.0:
        return logits
    score = logits.gather(1, prev_output_tokens)
    score = torch.where(score < 0, score * repetition_penalty, score / repetition_penalty)
    return logits.scatter_(1, prev_output_tokens, score)


def sample(logits: Tensor, top_k: int = 1, top_p: float = 0.0, min_p: float = 0.0, temperature: float = 1.0) -> Tensor:
    """Draw a token (B,) from logits (B, V).

    Args:
        logits: (B, V); left as they are.
        top_k: 1 takes the likeliest; 0 considers all tokens.
        top_p: Consider the likeliest tokens whose probabilities reach it; 0 considers all.
        min_p: With `top_k` 0, consider tokens with at least this part of the likeliest one's probability; it then takes
            the place of `top_p`.
        temperature: Divides the logits.

    Raises:
        ValueError: `top_p` or `min_p` lies outside 0 to 1, or `temperature` is not positive.
    """
    for name, value in (("top_p", top_p), ("min_p", min_p)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"sample: {name} must lie between 0 and 1, found {value}")
    if temperature <= 0:
        raise ValueError(
            f"sample: temperature must be positive, found {temperature}; top_k=1 takes the likeliest token"
        )
    if top_k == 1:
        return logits.argmax(-1)
    if top_k > 0:
        best, places = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
        best = best / temperature
        modify_logits_for_top_p_filtering(best, top_p)
        return places.gather(-1, best.softmax(-1).multinomial(1)).squeeze(-1)
    kept = logits.clone()
    if min_p > 0.0:
        probability = logits.softmax(-1)
        kept.masked_fill_(probability < min_p * probability.amax(-1, keepdim=True), -torch.inf)
        return (kept / temperature).softmax(-1).multinomial(1).squeeze(-1)
    kept = kept / temperature
    modify_logits_for_top_p_filtering(kept, top_p)
    return kept.softmax(-1).multinomial(1).squeeze(-1)


@torch.inference_mode()
def decode(
    input_ids: Tensor,
    model: Any,
    max_length: int,
    top_k: int = 1,
    top_p: float = 0.0,
    min_p: float = 0.0,
    temperature: float = 1.0,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    teacher_outputs: Tensor | None = None,
    vocab_size: int | None = None,
    cg: bool = False,
    enable_timing: bool = False,
    output_scores: bool = False,
    streamer: Any = None,
) -> GenerateDecoderOnlyOutput:
    """Go on from prompts of equal length until `max_length` tokens, or until all rows end at once.

    Args:
        input_ids: (B, L), the prompts.
        model: Called with `inference_params` and `num_last_tokens`, gives `.logits`.
        max_length: Tokens of a row, prompt included.
        top_k: See `sample`, as for `top_p`, `min_p` and `temperature`.
        top_p: See `sample`.
        min_p: See `sample`.
        temperature: See `sample`.
        repetition_penalty: Above 1 makes tokens that were there before less likely.
        eos_token_id: Ends generation where all rows draw it together.
        teacher_outputs: (B, at least L), taken instead of drawn tokens as far as it reaches.
        vocab_size: Logits beyond it are left out: rows of a padded vocabulary.
        cg: Of no influence: mamba-ssm replays CUDA graphs here.
        enable_timing: Print how long it took.
        output_scores: Also return the logits.
        streamer: Told of the prompt and of each token by `put`, of the end by `end`.

    Raises:
        ValueError: As `sample`.
    """
    began = time.perf_counter()
    if streamer is not None:
        streamer.put(input_ids.cpu())
    params = InferenceParams(max_seqlen=max_length, max_batch_size=input_ids.shape[0])
    taught = 0 if teacher_outputs is None else teacher_outputs.shape[1]
    scores: list[Tensor] = []
    sequences, newest = input_ids, input_ids
    while True:
        logits = _logits(model, newest, params)[..., :vocab_size]
        if output_scores:
            scores.append(logits.clone())
        params.seqlen_offset += newest.shape[1]
        if teacher_outputs is not None and params.seqlen_offset < taught:
            token = teacher_outputs[:, params.seqlen_offset]
        else:
            logits = modify_logit_for_repetition_penalty(logits, sequences, repetition_penalty)
            token = sample(logits, top_k, top_p, min_p, temperature)
        newest = token.unsqueeze(1)
        sequences = torch.cat([sequences, newest], dim=1)
        if streamer is not None:
            streamer.put(newest.cpu())
        ended = eos_token_id is not None and bool((newest == eos_token_id).all())
        if ended or params.seqlen_offset >= max_length - 1:
            break
    if streamer is not None:
        streamer.end()
    if enable_timing:
        if input_ids.is_cuda:
            torch.cuda.synchronize(input_ids.device)
        print(f"Prompt processing + decoding time: {(time.perf_counter() - began) * 1000:.0f}ms")
    return GenerateDecoderOnlyOutput(sequences, tuple(scores))


def _logits(model: Any, tokens: Tensor, params: InferenceParams) -> Tensor:
    """Logits (B, V) after the last of the tokens (B, L)."""
    positions = None
    if params.seqlen_offset > 0:
        positions = torch.full_like(tokens, params.seqlen_offset, dtype=torch.long)
    found = model(tokens, position_ids=positions, inference_params=params, num_last_tokens=1)
    return found.logits.squeeze(1)


class GenerationMixin:
    """Gives a model `generate`."""

    def allocate_inference_cache(self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None) -> Any:
        """Return the states before the first token, for `InferenceParams.key_value_memory_dict`."""
        raise NotImplementedError(f"{type(self).__name__} must say what its states are")

    def generate(
        self,
        input_ids: Tensor,
        max_length: int,
        top_k: int = 1,
        top_p: float = 0.0,
        min_p: float = 0.0,
        temperature: float = 1.0,
        return_dict_in_generate: bool = False,
        output_scores: bool = False,
        **kwargs: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """Go on from `input_ids` (B, L): see `decode`; returns (B, max_length) or, if asked, the scores with them."""
        output = decode(
            *(input_ids, self, max_length, top_k, top_p, min_p, temperature), output_scores=output_scores, **kwargs
        )
        if not output_scores:
            output.scores = None
        return output if return_dict_in_generate else output.sequences
