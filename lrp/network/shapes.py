"""Networks whose parameters have a shape and no values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWN = (Tensor.normal_, Tensor.uniform_)  # which on meta tensors load the compiler, in seconds, to do nothing


class _NotDrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWN and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """What is made meanwhile takes no memory, and its initial values are not drawn."""
    with torch.device("meta"), _NotDrawn():
        yield


@contextlib.contextmanager
def empty_parameters() -> Iterator[None]:
    """Parameters of modules that are made meanwhile take no memory, and their initial values are not drawn; buffers are made as ever, since
    files often lack them (tables of positions)."""
    before = nn.Module.register_parameter

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        before(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    nn.Module.register_parameter = register
    try:
        with _NotDrawn():
            yield
    finally:
        nn.Module.register_parameter = before
