"""Copies of networks."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrp.errors import InputError, first_line

Module = TypeVar("Module", bound=nn.Module)


def check_module(model: Any) -> nn.Module:
    """A network of torch that can be looked into.

    Raises:
        InputError: For anything else, for TorchScript, for lazy layers that have not run yet, and for weights without values.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "give a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model", type(model).__name__, "TorchScript cannot be taken apart; give the network that it was made from")
    if any(is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        raise InputError("model", type(model).__name__, "it has lazy layers without weights; run it once on an example first")
    if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]):
        raise InputError("model", type(model).__name__, "it has weights on the device meta, which hold no values; load them first")
    return model


def measured_copy(model: Module) -> Module:
    """A copy of a network to be measured: in eval mode, without gradients of its parameters, and without the backward hooks of its
    modules, which may change gradients and are meant for training.

    Raises:
        InputError: For a network that holds something which cannot be copied.
    """
    result = duplicate(model).eval().requires_grad_(False)
    for module in result.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return result


def duplicate(model: Module) -> Module:
    """A deep copy of a network. A tensor with a graph that a module keeps, such as its last output, is copied without the graph.

    Raises:
        InputError: For a network that holds something which cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever an attribute raises that cannot be copied
        raise InputError("model", type(model).__name__, f"it cannot be copied ({first_line(error)})") from error
