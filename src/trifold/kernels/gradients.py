"""How an operator's gradient is told to torch, and gradients by torch's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _C, Tensor


def register_gradient(
    operators: torch.library.Library,
    name: str,
    gradients: Callable[..., tuple[Tensor | None, ...]],
    save: Callable[[Any, tuple[Any, ...], Any], None],
) -> None:
    """As `torch.library.register_autograd`, which reads the schema anew in every call: 0.2 to 0.6 ms of a step each.

    gradients(ctx, *grads): the gradient at each input. save(ctx, inputs, output): after the operator has run. The
    operator has no keyword-only arguments and no defaults.
    """
    operator = getattr(torch.ops.trifold, name).default

    def below(keyset: Any, inputs: tuple[Any, ...]) -> Any:
        with _C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & _C._after_autograd_keyset, *inputs)

    def forward(ctx: Any, *inputs: Any) -> Any:
        *given, keyset = inputs
        output = below(keyset, tuple(given))
        save(ctx, tuple(given), output)
        return output

    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *gradients(ctx, *grads), None

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"GradientOf_trifold_{name}", (torch.autograd.Function,), body)

    def call(keyset: Any, *inputs: Any) -> Any:
        if torch.is_grad_enabled() and _C._any_requires_grad(*inputs):
            return function.apply(*inputs, keyset)
        return below(keyset, inputs)

    operators.impl(name, call, "Autograd", with_keyset=True)


def gradients_by_torch(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], needed: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    """The gradients at those inputs that need one, with a graph of their own, which the library's do not have."""
    wanted = [tensor for tensor, asked in zip(inputs, needed, strict=True) if asked]
    found = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True))
    return [next(found) if asked else None for asked in needed]
