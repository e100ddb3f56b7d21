"""Subclasses of torch's layers that compute what their parent does: the parent stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lrp.layer.carry import OF_TORCH
from lrp.layer.duplicate import duplicate
from lrp.standin.base import StandIn, is_usual

PARENTS: Sequence[type[nn.Module]] = (nn.Linear, nn.Conv1d, nn.Conv2d)
RUNNING = ("forward", "_conv_forward", "__call__", "_call_impl", "__getattr__", "__getattribute__")
FUNCTIONS = (F.linear, F.conv1d, F.conv2d)
ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Subclass(StandIn):
    """Of Linear, Conv1d and Conv2d, where what runs is the parent's: attributes, other methods and a constructor do no harm. The same
    holds of a forward that only calls the function which the parent's calls."""

    name = "subclass"
    shares = True

    def stands_for(self, module: nn.Module) -> bool:  # noqa: D102
        parent = parent_of(module)
        if parent is None:
            return False
        own = [method for method in RUNNING if getattr(type(module), method, None) is not getattr(parent, method, None)]
        return not own or own == ["forward"] and calls_directly(module)

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        parent = parent_of(module)
        assert parent is not None
        return plain_layer(module, parent)


def parent_of(module: nn.Module) -> type[nn.Module] | None:
    """Which of torch's layers a module's type is a subclass of, with a usual weight and bias; None where it is none."""
    parent = next((parent for parent in PARENTS if isinstance(module, parent) and type(module) is not parent), None)
    usual = is_usual(module, "weight", "bias") and not any(hasattr(type(module), name) for name in ("weight", "bias"))
    return parent if usual and isinstance(module.weight, nn.Parameter) else None


def plain_layer(module: Any, parent: Any, **options: Any) -> nn.Module:
    """A layer of the type ``parent`` with the parameters and options of a module of a subclass, but for these ``options``."""
    layer = parent(*[1] * (2 if parent is nn.Linear else 3), bias=module.bias is not None, device="meta")
    held = vars(layer)
    held |= {name: vars(module)[name] for name in held if name not in OF_TORCH and name in vars(module)} | options
    layer.weight, layer.bias = module.weight, module.bias
    return layer


class _Spy(TorchFunctionMode):
    """Notes the calls of layers' functions, and whether the weight goes anywhere else."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.calls: list[tuple[dict[str, Any], Tensor]] = []  # what each was called with, by name, and what it gave
        self.elsewhere = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in FUNCTIONS:
            self.calls.append(({**dict(zip(ARGUMENTS, args)), **(kwargs or {})}, result))
        elif isinstance(result, Tensor) and any(value is self.weight for value in args):
            self.elsewhere = True
        return result


@torch.no_grad()
def calls_directly(module: nn.Module, pad: Callable[[Tensor], Tensor] | None = None) -> bool:
    """Whether a module returns what one call of its parent's function gives for its input, with the module's own weight and options; or
    for ``pad(input)``, without further padding. It is watched while it runs on inputs of several sizes, in train and in eval mode."""
    twin: Any = duplicate(module)
    options: dict[str, tuple[Any, Any]] = {}  # what each is where it is not said, and what it has to be
    dims = 0
    if not isinstance(twin, nn.Linear):
        dims = len(twin.kernel_size)
        if pad is None and twin.padding_mode != "zeros":  # the parent does that itself, before it calls the function
            return False
        padding = twin.padding if pad is None else 0
        options = {"stride": (1, twin.stride), "padding": (0, padding), "dilation": (1, twin.dilation), "groups": (1, twin.groups)}
    try:
        for training in (True, False):
            twin.train(training)
            for x in examples(twin):
                with _Spy(twin.weight) as spy:
                    output = twin(x.clone())
                if len(spy.calls) != 1 or spy.elsewhere:
                    return False
                said, given = spy.calls[0]
                own = said.get("weight") is twin.weight and said.get("bias") is twin.bias
                same = all(_sides(said.get(name, usual), dims) == _sides(option, dims) for name, (usual, option) in options.items())
                if not own or not same or output is not given or not torch.equal(said["input"], x if pad is None else pad(x)):
                    return False
    except Exception:  # whatever the forward raises: it may want other arguments
        return False
    return True


def examples(module: Any) -> list[Tensor]:
    """Inputs of several sizes for a Linear or a convolution, large values among them."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, nn.Linear):
        shapes = [(2, module.in_features), (2, 3, module.in_features)]
    else:
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(module.kernel_size, module.dilation, strict=True)]
        shapes = [(2, module.in_channels, *(size + more + i for i, size in enumerate(reach))) for more in (3, 4, 6, 9)]
    return [(100 * torch.randn(shape, generator=generator)).to(module.weight) for shape in shapes]


def _sides(value: Any, dims: int) -> Any:
    """An option of a convolution, one number or as many as there are sides."""
    return tuple(value) * (dims if len(value) == 1 else 1) if isinstance(value, (list, tuple)) else (value,) * dims
