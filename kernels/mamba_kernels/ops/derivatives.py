"""Derivatives that compiled kernels do not have, and how plain torch stands in for them.

A compiled kernel knows its value and, by a hand-written formula, its gradient. It knows nothing of second derivatives,
of forward mode (`torch.autograd.forward_ad`, `torch.func.jvp`) and of the other transforms of `torch.func`; left alone
it would answer them with zeros. So each operator asks `backend_that_follows` before it runs and hands over to its
plain torch implementation where a kernel could not follow, and each hand-written gradient that is itself to be
differentiated is formed by `gradient_through` instead.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mamba_kernels.arguments import widest_dtype
from mamba_kernels.dispatch import COMPILED_BACKENDS, resolve_backend


def beyond_a_gradient(*tensors: Tensor | None) -> bool:
    """Say whether more is asked of `tensors` than a value and a gradient: tangents, or a transform of `torch.func`."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling():  # a compiler's own tracing; it differentiates what it has traced
        return False
    return any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def gradient_wanted(*tensors: Tensor | None) -> bool:
    """Say whether autograd will ask for the gradient of what is computed from `tensors`."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def recomputed_backward(*tensors: Tensor | None) -> bool:
    """Say whether plain torch should compute a piece again in the backward pass rather than keep all its states.

    The transforms of `torch.func` cannot: they do not take the hooks that recomputation needs. Of an exported program
    it is not known whether it will be differentiated.
    """
    plain = torch._C._are_functorch_transforms_active() or torch.compiler.is_exporting()
    return gradient_wanted(*tensors) and not plain


def backend_that_follows(
    op: str, requested: str | None, x: Tensor, *others: Tensor | None, has_gradient: bool = True
) -> str:
    """Choose the backend of an operator: "torch" where a compiled one could not follow what is asked for.

    While a program is exported it is "torch" whatever was asked for: it will run where these kernels are not.

    Args:
        op: The operator's name, for messages.
        requested: The caller's `backend` argument, or None.
        x: The tensor whose device decides.
        others: The operator's other tensors; None stands for one that was left out.
        has_gradient: Whether the compiled kernels have a gradient and are known to compilers, which does not hold
            for those of one-token updates.

    Raises:
        ValueError: The backend asked for does not exist or cannot run here, as `mamba_kernels.dispatch` says.
    """
    chosen = resolve_backend(op, requested, x.device, widest_dtype(x, *others))
    if torch.compiler.is_exporting():
        return "torch"
    if chosen not in COMPILED_BACKENDS:
        return chosen
    if not has_gradient and (torch.compiler.is_compiling() or gradient_wanted(x, *others)):
        return "torch"
    return "torch" if beyond_a_gradient(x, *others) else chosen


def gradient_through(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Any], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return the gradient of a plain torch implementation, such that it can be differentiated again.

    Args:
        run: The implementation.
        inputs: What it takes, tensors and others.
        gradients: Of each of its outputs; None for one that nothing depends on.

    Returns:
        A gradient for each input that has one to ask for, None for all others.
    """
    with torch.enable_grad():
        # Inputs may have been computed from one another; views of them have not.
        views = [i.view_as(i) if isinstance(i, Tensor) and i.requires_grad else i for i in inputs]
        outputs = run(*views)
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
        wanted = [view for view in views if isinstance(view, Tensor) and view.requires_grad]
        if not pairs:
            return (None,) * len(views)
        differentiated, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(differentiated, wanted, given, create_graph=True, allow_unused=True))
    return tuple(next(found) if isinstance(view, Tensor) and view.requires_grad else None for view in views)


def to_be_differentiated(*gradients: Tensor | None) -> bool:
    """Say, inside a gradient formula, whether its result will be differentiated in turn (`create_graph=True`)."""
    return torch.is_grad_enabled() or beyond_a_gradient(*gradients)


def refuse_second_derivative(operator: str, library: torch.library.Library | None = None) -> None:
    """Let the registered gradient `operator` raise where it is differentiated; torch would take it for a constant.

    The operators' formulas never get there; a program that calls the registered gradient itself would.
    """

    def refuse(ctx: Any, *_: Any) -> None:
        raise NotImplementedError(f"{operator} has no derivative; use the operator with backend='torch' or 'reference'")

    def keep_nothing(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    torch.library.register_autograd(operator, refuse, setup_context=keep_nothing, lib=library)


def differentiable_once(advice: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let the `backward` of an autograd function raise where its result is differentiated.

    As torch's `once_differentiable`, which however overlooks a second derivative in the saved tensors alone.

    Args:
        advice: What the error says, and what to do instead.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def wrapped(ctx: Any, *gradients: Tensor) -> Any:
            with torch.no_grad():
                found = backward(ctx, *gradients)
            if not torch.is_grad_enabled():
                return found
            return tuple(_Refused.apply(g.requires_grad_(), advice) if isinstance(g, Tensor) else g for g in found)

        return wrapped

    return decorate


class _Refused(torch.autograd.Function):
    """`apply(tensor, advice) -> tensor`, whose gradient is an error with the advice."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, advice: str) -> Tensor:
        ctx.advice = advice
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError(ctx.advice)
