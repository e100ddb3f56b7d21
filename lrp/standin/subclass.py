"""Subclasses of torch's layers that compute what their parent does: the parent stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lrp.layer.carry import OF_TORCH
from lrp.layer.duplicate import duplicate
from lrp.standin.base import StandIn, is_usual

PARENTS: Sequence[type[nn.Module]] = (nn.Linear, nn.Conv1d, nn.Conv2d)
RUNNING = ("forward", "_conv_forward", "__call__", "_call_impl", "__getattr__", "__getattribute__")
FUNCTIONS = (F.linear, F.conv1d, F.conv2d)
ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
OPTIONS = ("stride", "dilation", "groups")


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


def of_class(module: nn.Module, parent: type[nn.Module]) -> dict[str, Any]:
    """What the classes of a module have that their parent has not, by name: constants, and methods and properties as they are defined."""
    below = [kind for kind in reversed(type(module).__mro__) if not issubclass(parent, kind)]
    return {name: value for kind in below for name, value in vars(kind).items() if name[:2] != "__" and not hasattr(parent, name)}


def plain_layer(module: Any, parent: Any, **options: Any) -> nn.Module:
    """A layer of the type ``parent`` with the parameters and options of a module of a subclass, but for these ``options``."""
    layer = parent(*[1] * (2 if parent is nn.Linear else 3), bias=module.bias is not None, device="meta")
    held = vars(layer)
    held |= {name: vars(module)[name] for name in held if name not in OF_TORCH and name in vars(module)} | options
    held |= {name: value for name, value in of_class(module, parent).items() if not hasattr(value, "__get__")}
    layer.weight, layer.bias = module.weight, module.bias
    return layer


class _Spy(TorchFunctionMode):
    """Notes the calls of layers' functions, and whether the weight or the bias goes anywhere else."""

    def __init__(self, own: Sequence[Tensor]) -> None:
        super().__init__()
        self.own = {id(parameter) for parameter in own}
        self.calls: list[tuple[dict[str, Any], Tensor]] = []  # what each was called with, by name, and what it gave
        self.elsewhere = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in FUNCTIONS:
            self.calls.append(({**dict(zip(ARGUMENTS, args)), **kwargs}, result))
        elif isinstance(result, Tensor) and any(id(value) in self.own for value in tree_leaves((args, kwargs))):
            self.elsewhere = True
        return result


@dataclass(frozen=True)
class Call:
    """The one call of its parent's function that a module made, with its own weight, bias and options.

    Attributes:
        x: What the module was called with.
        read: What the function was called with.
        padding: As the function was told, by sides.
        given: What the function gave.
        output: What the module gave.
    """

    x: Tensor
    read: Tensor
    padding: Any
    given: Tensor
    output: Tensor


@torch.no_grad()
def calls(module: nn.Module) -> list[Call]:
    """What a module does on inputs of several sizes, in train and in eval mode; none where it does anything else with its parameters
    than one such call, or cannot run."""
    twin: Any = duplicate(module)
    found: list[Call] = []
    try:
        for training in (True, False):
            twin.train(training)
            for x in examples(twin):
                with _Spy([twin.weight] if twin.bias is None else [twin.weight, twin.bias]) as spy, torch.random.fork_rng([]):
                    output = twin(x.clone())
                said, given = spy.calls[0]
                own = said.get("weight") is twin.weight and said.get("bias") is twin.bias
                options = all(sides(said.get(name, 1), twin) == sides(getattr(twin, name, 1), twin) for name in OPTIONS)
                if len(spy.calls) != 1 or spy.elsewhere or not own or not options or not isinstance(output, Tensor):
                    return []
                found.append(Call(x, said["input"], sides(said.get("padding", 0), twin), given, output))
    except Exception:  # whatever the forward raises: it may want other arguments
        return []
    return found


def calls_directly(module: Any, pad: Callable[[Tensor], Tensor] | None = None) -> bool:
    """Whether a module gives what its parent's function gives for its input; or for ``pad(input)``, without further padding."""
    if pad is None and getattr(module, "padding_mode", "zeros") != "zeros":  # the parent pads before it calls the function
        return False
    padding = sides(getattr(module, "padding", 0) if pad is None else 0, module)
    found = calls(module)
    return bool(found) and all(
        call.output is call.given and call.padding == padding and torch.equal(call.read, call.x if pad is None else pad(call.x))
        for call in found
    )


def examples(module: Any) -> list[Tensor]:
    """Inputs of several sizes for a Linear or a convolution, large values among them."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, nn.Linear):
        shapes = [(2, module.in_features), (2, 3, module.in_features)]
    else:
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(module.kernel_size, module.dilation, strict=True)]
        shapes = [(2, module.in_channels, *(size + more + i for i, size in enumerate(reach))) for more in (3, 4, 6, 9)]
    return [(100 * torch.randn(shape, generator=generator)).to(module.weight) for shape in shapes]


def sides(value: Any, module: Any) -> Any:
    """An option of a convolution, one number or as many as there are sides."""
    dims = len(getattr(module, "kernel_size", ()))
    return tuple(value) * (dims if len(value) == 1 else 1) if isinstance(value, (list, tuple)) else (value,) * dims
