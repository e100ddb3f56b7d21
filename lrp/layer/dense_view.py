"""The weight of a low-rank layer for code that looks at a layer's weight: made from the factors only where its values are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lrp.errors import InputError

_T: Any = torch.Tensor  # whose attributes are descriptors
_C: Any = torch._C  # whose private functions its stubs leave out
LOOKS = {
    *(getattr(_T, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_sparse")),
    *(getattr(_T, name).__get__ for name in ("is_quantized", "is_meta")),
    *(getattr(_T, name) for name in ("size", "dim", "numel", "nelement", "element_size", "is_floating_point", "is_complex", "__len__")),
    *(getattr(_T, name) for name in ("get_device", "new_empty", "new_zeros", "new_ones", "new_full", "new_tensor")),
    *(torch.zeros_like, torch.ones_like, torch.empty_like, torch.rand_like, torch.randn_like, torch.full_like),
    *(torch.is_floating_point, torch.is_complex, torch.numel),
}  # fmt: skip
LIKE = {_T.to, _T.type_as}  # of whose further arguments only dtype and device count
SAME = {_T.data.__get__, _T.detach}
AUGMENTED = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__", "__iand__", "__ior__", "__ixor__"}


class DenseView(torch.Tensor):
    """A tensor without memory of its own: ``make()`` gives its values where they are read. Shape, dtype and device cost nothing;
    writing into it is refused, since there is no such tensor to write into."""

    _make: Callable[[], Tensor]

    @staticmethod
    def __new__(cls, make: Callable[[], Tensor], shape: Sequence[int], like: Tensor) -> DenseView:
        """``like`` has the dtype and the device."""
        view = torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=like.dtype, device=like.device)
        view._make = make
        return view

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the function gives on the values, or on what is known without them.

        Raises:
            InputError: For a function that writes into the view.
        """
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func == _T.grad.__get__:
            return None
        if func in SAME and isinstance(first, DenseView):
            make = first._make
            return DenseView(lambda: make().detach(), first.shape, first)
        named = [kwargs.get(name) for name in ("tensor", "input", "self")]  # nn.init gives its tensor by name
        targets = [first, *(first if isinstance(first, (list, tuple)) else []), *named, kwargs.get("out")]
        if _writes(func) and any(isinstance(target, DenseView) for target in targets[:-1]) or isinstance(targets[-1], DenseView):
            raise InputError(
                "weight", getattr(func, "__name__", func), "the weight of a low-rank layer is made from its factors and cannot be written"
            )
        with torch._C.DisableTorchFunctionSubclass():
            if func in LOOKS:
                return func(*tree_map(_placeholder, args), **kwargs)
            if func in LIKE:
                args = (args[0], *tree_map(_placeholder, args[1:]))
            made: list[Tensor] = []
            result = func(*tree_map(partial(_values, made), args), **tree_map(partial(_values, made), kwargs))
            return tree_map(partial(_of_view, made), result) if made else result

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Nothing comes here but code that goes around torch's functions.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{func}: the weight of a low-rank layer has no memory of its own; call weight_matrix() of the layer")


def _writes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name in AUGMENTED or name in ("__setitem__", "__set__") or name.endswith("_") and not name.endswith("__")


def _placeholder(value: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape) if isinstance(value, DenseView) else value


def _values(made: list[Tensor], value: Any) -> Any:
    """The values of a view, which are noted."""
    if not isinstance(value, DenseView):
        return value
    made.append(value._make())
    return made[-1]


def _of_view(made: Sequence[Tensor], value: Any) -> Any:
    """A part of a view's values, which lies in their memory, as a view: what is written into it would be lost as well."""
    if not isinstance(value, Tensor) or not any(_C._is_alias_of(value, whole) for whole in made):
        return value
    return DenseView(lambda: value, value.shape, value)
