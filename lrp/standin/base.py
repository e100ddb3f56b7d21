"""What the kinds of stand-ins share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrp.layer.carry import OF_TORCH, STATE_HOOKS


class StandIn:
    """One kind of modules that other modules can stand in for: what they compute is Linear layers or convolutions, and little else.

    A stand-in has the call signature of the module, holds ordinary layers and computes the same up to rounding, with the same
    gradients; it has none of the module's parameters where it holds them in another shape.

    Attributes:
        name: What files call the kind.
        shares: Whether the stand-in holds the very parameters of the module, in the same order, so that ties to other modules stay.
    """

    name: ClassVar[str]
    shares: ClassVar[bool] = False

    def stands_for(self, module: nn.Module) -> bool:
        """Whether a module is of this kind, and nothing about it is its own."""
        raise NotImplementedError

    def make(self, module: Any) -> nn.Module:
        """The stand-in, with the values of a module that is of this kind, on its device. ``replace`` adds hooks and attributes."""
        raise NotImplementedError


def is_usual(module: nn.Module, *parameters: str) -> bool:
    """Whether a module holds just these parameters (a value or None), runs its type's methods and has no hooks on its state."""
    if module._parameters.keys() != set(parameters):
        return False  # one that is pruned or normalised computes its weight
    kind, held = type(module), vars(module).items()
    own = any(name not in OF_TORCH and callable(value) and callable(getattr(kind, name, None)) for name, value in held)
    return not own and not any(getattr(module, name) for name in STATE_HOOKS)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A Linear with this weight (M, N) and bias (M,): with the same parameter where one is given, else with a copy."""
    layer: Any = nn.Linear(1, 1, bias=bias is not None, device="meta")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = as_parameter(weight)
    layer.bias = None if bias is None else as_parameter(bias)
    return layer


def as_parameter(value: Tensor) -> nn.Parameter:
    """A parameter as it is; a part of one copied, needing a gradient where the whole does."""
    if isinstance(value, nn.Parameter):
        return value
    with torch.no_grad():
        return nn.Parameter(value.clone(memory_format=torch.contiguous_format), requires_grad=value.requires_grad)
