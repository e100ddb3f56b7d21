"""Subclasses of torch's layers that do something before or after what their parent does."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lrp.layer.carry import carry_over
from lrp.layer.duplicate import duplicate
from lrp.standin.base import StandIn
from lrp.standin.subclass import FUNCTIONS, calls, parent_of, plain_layer

INNER, PLACEHOLDER = "inner", "placeholder"


class _ToInner(TorchFunctionMode):
    """A layer runs in the place of its function."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FUNCTIONS:  # the one call that ``calls`` has seen
            return self.layer(args[0] if args else kwargs["input"])
        return func(*args, **(kwargs or {}))


class _Calling(nn.Module):
    """What a stand-in has before its kind's own methods."""

    inner: Any
    placeholder: Tensor
    shape: tuple[int, ...]

    @property
    def weight(self) -> Tensor:
        """Shape, type and device of the weight, for the call: ``calls`` has seen that nothing else reads it."""
        return self.placeholder.expand(self.shape)

    @property
    def bias(self) -> Tensor | None:
        """That of the inner layer; None of one that is unfolded into several."""
        return getattr(self.inner, "bias", None)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A type that is made anew cannot be found by its name."""
        return _empty, (type(self).__mro__[2],), vars(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the kind's own forward gives, with the inner layer in the place of the function."""
        with _ToInner(self.inner):
            return super().forward(*args, **kwargs)


@functools.cache
def _type(kind: type) -> Any:
    return type(kind.__name__, (_Calling, kind), {"__module__": __name__})


def _empty(kind: type) -> Any:
    made = _type(kind)
    return made.__new__(made)


class Around(StandIn):
    """The subclass's own forward, in which a plain layer, ``inner``, runs in the place of the one call of the function that the parent's
    forward calls: by ``super().forward`` or by itself."""

    name = "around"
    shares = True

    def stands_for(self, module: nn.Module) -> bool:  # noqa: D102
        if parent_of(module) is None or any(hasattr(module, name) for name in (INNER, PLACEHOLDER, "shape")):
            return False
        found = calls(module)
        return bool(found) and len({call.padding for call in found}) == 1 and _gives_the_same(module)

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        parent: Any = parent_of(module)
        options: dict[str, Any] = {}
        if parent is not nn.Linear:
            padding: Any = calls(module)[0].padding
            padding = padding[0] if isinstance(padding[0], str) else padding
            like: Any = parent(1, 1, module.kernel_size, dilation=module.dilation, padding=padding, device="meta")
            options = {name: vars(like)[name] for name in ("padding", "_reversed_padding_repeated_twice", "padding_mode")}
        result = _empty(type(module))
        nn.Module.__init__(result)
        carry_over(module, result)
        result.register_buffer(PLACEHOLDER, module.weight.new_zeros(()), persistent=False)
        result.shape = tuple(module.weight.shape)
        result._modules |= {INNER: plain_layer(module, parent, **options), **module._modules}
        return result


@torch.no_grad()
def _gives_the_same(module: nn.Module) -> bool:
    """Whether the stand-in gives what the module gives, in train and in eval mode."""
    try:
        for training in (True, False):
            twin: Any = duplicate(module).train(training)
            other = Around().make(duplicate(module)).train(training)
            for call in calls(module):
                results = []
                for each in (twin, other):
                    with torch.random.fork_rng([]):
                        torch.manual_seed(0)
                        results.append(each(call.x.clone()))
                if not torch.equal(*results):
                    return False
    except Exception:  # whatever the forward raises
        return False
    return True
