"""Copies of networks."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrp.errors import InputError, first_line

Module = TypeVar("Module", bound=nn.Module)
P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def ordinary_modes() -> Iterator[None]:
    """Tensors are made on the CPU where no device is named, whatever the caller's default device is, and can be trained, also where the
    caller is within inference_mode."""
    cpu = contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    with torch.inference_mode(False), cpu:
        yield


def ordinary(function: Callable[P, R]) -> Callable[P, R]:
    """The function within ``ordinary_modes``."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with ordinary_modes():
            return function(*args, **kwargs)

    return wrapped


def check_module(model: Any) -> nn.Module:
    """A network of torch that can be looked into.

    Raises:
        InputError: For anything else, for TorchScript, for lazy layers that have not run yet, and for weights without values.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "give a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model", type(model).__name__, "TorchScript cannot be taken apart; give the network that it was made from")
    return check_values(model)


def check_values(model: nn.Module) -> nn.Module:
    """A network whose weights have values.

    Raises:
        InputError: For lazy layers that have not run yet, and for weights on the device meta.
    """
    if any(is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        raise InputError("model", type(model).__name__, "it has lazy layers without weights; run it once on an example first")
    if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()]):
        raise InputError("model", type(model).__name__, "it has weights on the device meta, which hold no values; load them first")
    return model


def measured_copy(model: Module, share: bool = False) -> Module:
    """A copy of a network to be measured: in eval mode, without gradients of its parameters, and without the backward hooks of its
    modules, which may change gradients and are meant for training.

    ``share``: its parameters take no room, since they hold the very numbers of the network, which no forward is to write into then.

    Raises:
        InputError: For a network that holds something which cannot be copied.
    """
    result = duplicate(model, views=share).eval().requires_grad_(False)
    for module in result.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return result


def duplicate(model: Module, device: torch.device | str | None = None, share: bool = False, views: bool = False) -> Module:
    """A deep copy of a network. A tensor with a graph that a module keeps, such as its last output, is copied without the graph.

    ``device``: its parameters are made there at once, rather than copied first; on "meta" a copy takes no room. ``share``: the copy holds
    the very parameters of the network; ``views``: parameters of its own that hold the same numbers.

    Raises:
        InputError: For a network that holds something which cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
        if share:
            memo |= {id(value): value for value in module._parameters.values() if value is not None}
        for value in module._parameters.values() if views else ():
            if type(value) is nn.Parameter and id(value) not in memo:
                memo[id(value)] = nn.Parameter(value.detach().clone() if value.is_inference() else value.detach(), value.requires_grad)
        for value in module._parameters.values() if device is not None else ():
            if type(value) is nn.Parameter:
                memo[id(value)] = nn.Parameter(value.detach().to(device, copy=True), value.requires_grad)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever an attribute raises that cannot be copied
        raise InputError("model", type(model).__name__, f"it cannot be copied ({first_line(error)})") from error


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """As ``load_state_dict``, into tensors as well that hold one value for several entries (``expand``), which torch does not write.

    Raises:
        ValueError: Where these entries differ.
        RuntimeError: Where the state does not fit, as torch says it.
    """
    written = {}
    for name, tensor in model.state_dict().items():
        one = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride()) if isinstance(tensor, Tensor) else ()
        if slice(0, 1) not in one or not tensor.numel() or name not in state or state[name].shape != tensor.shape:
            continue
        value = state[name][one]
        if not torch.equal(value.expand(tensor.shape).nan_to_num(), state[name].nan_to_num()):
            raise ValueError(f"{name} is one value for several entries here, and differing ones in the state")
        tensor[one].copy_(value)
        written[name] = state[name]
    if not written:
        model.load_state_dict(state)
        return
    found = model.load_state_dict({name: value for name, value in state.items() if name not in written}, strict=False)
    if lost := {*found.missing_keys} - written.keys() | {*found.unexpected_keys}:
        raise RuntimeError(f"the state does not fit: {', '.join(sorted(lost))}")
