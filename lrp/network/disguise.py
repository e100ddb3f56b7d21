"""Layers of another type in the place of a network's own: what it does when it asks of what type they are."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn

from lrp.inputs import Inputs
from lrp.layer.carry import carry_over
from lrp.layer.duplicate import duplicate
from lrp.network.arithmetic import run_model


@functools.cache
def _stranger(kind: type[nn.Module]) -> type[nn.Module]:
    """A class that computes what a layer of torch computes, and is none."""
    held: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        if not issubclass(nn.Module, each):
            held |= {name: value for name, value in vars(each).items() if name not in ("__dict__", "__weakref__")}
    return type(kind.__name__, (nn.Module,), held)


def copied(layer: nn.Module) -> nn.Module:
    """Another layer that shares everything with this one."""
    other = copy.copy(layer)
    carry_over(layer, other)
    return other


def disguised(layer: nn.Module) -> nn.Module:
    """The same, of another type."""
    other = copied(layer)
    other.__class__ = _stranger(type(layer))
    return other


@torch.no_grad()
def as_it_is(model: nn.Module, example: Inputs, names: list[str]) -> tuple[set[str], Any]:
    """Which of these layers give something when the network runs on an example, and what it gives."""
    twin, called = duplicate(model).eval(), set[str]()

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel():
            called.add(name)

    for name in names:
        twin.get_submodule(name).register_forward_hook(lambda *given, name=name: note(name, given[-1]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return called, run_model(twin, example)
