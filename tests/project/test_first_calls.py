"""The suite's run-time types: wrong ones are found, in every test anew, without a check at every call."""

from __future__ import annotations

import first_calls
import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor


@jaxtyped(typechecker=first_calls.checked)
def paired(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return a.new_empty(len(a))


class Holder:
    @property
    @jaxtyped(typechecker=first_calls.checked)
    def size(self) -> int:
        return "none"  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("again", [False, True])
def test_the_first_calls_of_every_test_are_checked(again: bool) -> None:
    for _ in range(first_calls.CALLS // 2):
        with pytest.raises(TypeCheckError):
            paired(torch.zeros(2), torch.zeros(3))
    with pytest.raises(TypeCheckError):
        _ = Holder().size


def test_later_calls_go_unchecked_until_the_next_test() -> None:
    for _ in range(first_calls.CALLS + 1):
        paired(torch.zeros(2), torch.zeros(2))
    assert paired(torch.zeros(2), torch.zeros(3)).shape == (2,)
    first_calls.begin_anew()
    with pytest.raises(TypeCheckError):
        paired(torch.zeros(2), torch.zeros(3))


def test_the_package_is_checked() -> None:
    from mamba_kernels import rms_norm

    with pytest.raises(TypeCheckError):
        rms_norm("not a tensor", torch.ones(3))  # pyright: ignore[reportArgumentType]
