"""Copies of networks."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

from lrp.errors import InputError, first_line

Module = TypeVar("Module", bound=nn.Module)


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
