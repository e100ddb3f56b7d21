"""Subclasses of torch's layers that do something before or after what their parent does."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from lrp.layer.carry import carry_over
from lrp.layer.dense_view import DenseView
from lrp.layer.duplicate import duplicate
from lrp.standin.base import StandIn
from lrp.standin.subclass import examples, parent_of, plain_layer

INNER = "inner"


class _Inside(nn.Module):
    """What comes between a subclass and its parent in the order in which Python looks for methods: ``super().forward(x)`` of the
    subclass is the layer ``inner``."""

    inner: Any

    @property
    def weight(self) -> Tensor:
        """That of the inner layer."""
        return self.inner.weight

    @property
    def bias(self) -> Tensor | None:
        """That of the inner layer."""
        return self.inner.bias

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A type that is made anew cannot be found by its name."""
        return _empty, (type(self).__mro__[1],), vars(self)


class _InsideLinear(_Inside, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return self.inner(input)


class _InsideConv1d(_Inside, nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, None, None)  # type: ignore[arg-type]

    def _conv_forward(self, input: Tensor, weight: Any, bias: Any) -> Tensor:
        return self.inner(input)


class _InsideConv2d(_Inside, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, None, None)  # type: ignore[arg-type]

    def _conv_forward(self, input: Tensor, weight: Any, bias: Any) -> Tensor:
        return self.inner(input)


_INSIDE: dict[Any, type] = {nn.Linear: _InsideLinear, nn.Conv1d: _InsideConv1d, nn.Conv2d: _InsideConv2d}


@functools.cache
def _type(kind: type, parent: type) -> Any:
    return type(kind.__name__, (kind, _INSIDE[parent]), {"__module__": __name__, "__reduce_ex__": _Inside.__reduce_ex__})


def _empty(kind: type) -> Any:
    made = _type(kind, next(parent for parent in _INSIDE if issubclass(kind, parent)))
    return made.__new__(made)


class _AsCompressed(nn.Module):
    """A layer whose weight can be read and not be written, as a compressed one's."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    @property
    def weight(self) -> Tensor:
        layer = self.layer
        return DenseView(lambda: layer.weight.detach(), layer.weight.shape, layer.weight)

    @property
    def bias(self) -> Tensor | None:
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Around(StandIn):
    """The subclass's own forward, which calls its parent's once: there runs a plain layer, ``inner``."""

    name = "around"
    shares = True

    def stands_for(self, module: nn.Module) -> bool:  # noqa: D102
        parent = parent_of(module)
        return parent is not None and not hasattr(module, INNER) and _calls_parent(module, parent)

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        parent = parent_of(module)
        assert parent is not None
        result = _empty(type(module))
        nn.Module.__init__(result)
        carry_over(module, result)
        result._modules |= {INNER: plain_layer(module, parent), **module._modules}
        return result


@torch.no_grad()
def _calls_parent(module: nn.Module, parent: type) -> bool:
    """Whether a module's forward calls that of its parent once, with the module's own weight, and gives the same where an inner layer runs
    there: watched on inputs of several sizes, in train and in eval mode."""
    seen: list[bool] = []
    given: Any = parent

    def forward(self: Any, input: Tensor) -> Tensor:
        seen.append(True)
        return given.forward(self, input)

    def convolve(self: Any, input: Tensor, weight: Any, bias: Any) -> Tensor:
        seen.append(weight is self._parameters["weight"] and bias is self._parameters["bias"])
        return given._conv_forward(self, input, weight, bias)

    spying = type("Spy", (parent,), {"forward": forward} if parent is nn.Linear else {"_conv_forward": convolve})
    kind = type(module)
    try:
        twin: Any = duplicate(module)
        twin.__class__ = type(kind.__name__, (kind, spying), {})
        other: Any = Around().make(duplicate(module))
        other._modules[INNER] = _AsCompressed(other.inner)
        for training in (True, False):
            for x in examples(module):
                seen.clear()
                results = []
                for each in (twin, other):
                    with torch.random.fork_rng([]):
                        torch.manual_seed(0)
                        results.append(each.train(training)(x.clone()))
                if seen != [True] or not torch.equal(*results):
                    return False
    except Exception:  # whatever the forward raises: it may want other arguments
        return False
    return True
