"""Convolutions that pad as TensorFlow's "SAME" does, such as timm's ``Conv2dSame``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lrp.standin.base import StandIn
from lrp.standin.subclass import calls_directly, parent_of, plain_layer


class SamePad(nn.Module):
    """Zeros around an input (..., C, L) or (..., C, H, W), so that a convolution gives ceil(size / stride) positions; one more at
    the end where their number is odd."""

    def __init__(self, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> None:
        super().__init__()
        self.sides = list(zip(kernel_size, stride, dilation, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """The padded input."""
        around: list[int] = []
        for size, (kernel, stride, dilation) in zip(x.shape[-len(self.sides) :], self.sides, strict=True):
            missing = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            around = [missing // 2, missing - missing // 2, *around]
        return F.pad(x, around)


class PaddedConv(nn.Module):
    """``pad``, then ``conv``."""

    def __init__(self, pad: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.pad, self.conv = pad, conv

    def forward(self, input: Tensor) -> Tensor:
        """What the convolution gives for the padded input."""
        return self.conv(self.pad(input))


class SamePadding(StandIn):
    """A subclass of a convolution whose forward pads so and then calls the function."""

    name = "same_padding"
    shares = True

    def stands_for(self, module: Any) -> bool:  # noqa: D102
        if parent_of(module) in (None, nn.Linear):
            return False
        return calls_directly(module, SamePad(module.kernel_size, module.stride, module.dilation))

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        none = (0,) * len(module.kernel_size)
        around = {"padding": none, "_reversed_padding_repeated_twice": [0] * (2 * len(none)), "padding_mode": "zeros"}
        conv = plain_layer(module, parent_of(module), **around)
        return PaddedConv(SamePad(module.kernel_size, module.stride, module.dilation), conv)
