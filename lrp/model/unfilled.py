"""Networks that are built to see whether they can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLS = ("normal_", "uniform_")


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where random numbers would be drawn."""

    def __torch_function__(self, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FILLS:  # of torch.nn.init, which names its arguments, or of the tensor
            filled = args[0] if args else given["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **given)


@contextmanager
def unfilled() -> Iterator[None]:
    """Tensors that are made in this context have a shape and no memory, and are not filled: to draw numbers for them torch would load its
    compiler, which takes seconds."""
    with torch.device("meta"), _Unfilled():
        yield


@contextmanager
def empty_parameters() -> Iterator[None]:
    """Parameters of modules that are made in this context have a shape and no memory. Buffers are made as ever: files often lack them
    (tables of positions)."""
    before = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        before(self, name, param)
        if param is not None and not param.is_meta:
            self._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

    nn.Module.register_parameter = register
    try:
        with _Unfilled():
            yield
    finally:
        nn.Module.register_parameter = before
