"""Floating point operations by torch's own formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

NO_OPERATIONS = (torch.ops.prim.device.default, torch.ops.prim.layout.default)


class FlopCounter(TorchDispatchMode):
    """Counts what runs inside of it, as torch's FlopCounterMode, by the formulas of ``torch.utils.flop_counter``. That one loads torch's
    compiler when it meets the first operation, which takes as long as the rest of a small run.

    Attributes:
        flops: So far; two for a multiply-accumulate.
    """

    supports_higher_order_operators = False

    def __init__(self, more: Mapping[Any, Callable[..., int]]) -> None:
        """``more``: formulas of the sizes of operations that torch has none for, by the operations."""
        super().__init__()
        self.flops, self._more = 0, more

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each operation is told to the compiler, which has to be there then

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        known = packet in flop_registry or packet in self._more
        if not known and func not in NO_OPERATIONS:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in self._more:
            sizes = [arg.shape if isinstance(arg, torch.Tensor) else arg for arg in args]
            self.flops += self._more[packet](*sizes)
        elif known:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=result)
        return result
