"""What compressed convolutions of every form share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import Compressed, filled


class CompressedConv(Compressed):
    """A convolution (input (B, C_in, ...) or (C_in, ...), output (..., M, ...)) in some form."""

    attributes = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    own = (*Compressed.own, "dims", "_around")
    convolve: ClassVar[Any]
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str

    def __init__(self, dense: Any, held: Any) -> None:
        super().__init__(dense, held)
        self.dims = len(dense.kernel_size)
        self._around: list[int] = list(dense._reversed_padding_repeated_twice)  # last dimension first, "same" resolved

    def _weight_shape(self) -> tuple[int, ...]:
        """(M, C_in of a group, ...)."""
        return self.rows, self.in_channels // self.groups, *self.kernel_size

    def _padded(self, x: Tensor) -> tuple[Tensor, str | tuple[int, ...] | int]:
        """The input with its padding around, and what padding is left for the convolution to do: that with zeros."""
        if self.padding_mode == "zeros":
            return x, self.padding
        return F.pad(x, self._around, mode=self.padding_mode), 0

    def _along_sides(self, x: Tensor, A: Tensor, B: Tensor, bias: Tensor | None = None) -> Tensor:
        """In two dimensions: ``A`` (r, C, k_h) along the first side of the kernel, then ``B`` (M, r, k_w) along the second."""
        x, padding = self._padded(x)
        first, second = by_side(padding)
        x = self.convolve(x, A[..., None], None, (self.stride[0], 1), first, (self.dilation[0], 1), self.groups)
        return self.convolve(x, B[:, :, None], bias, (1, self.stride[1]), second, (1, self.dilation[1]), self.groups)

    def _plain_sides(self, channels: int, A: Tensor, B: Tensor, bias: Tensor | None = None) -> list[nn.Module]:
        """The same as two plain layers that read so many channels. The padding mode has to be zeros."""
        first, second = by_side(self.padding)
        (up, left), (sh, sw), (dh, dw), groups = self.kernel_size, self.stride, self.dilation, self.groups
        return [
            filled(nn.Conv2d(channels, len(A), (up, 1), (sh, 1), first, (dh, 1), groups, False), A, None),
            filled(nn.Conv2d(len(A), len(B), (1, left), (1, sw), second, (1, dw), groups, bias is not None), B, bias),
        ]

    def _plain_triple(self, P: Tensor, K: Tensor, U: Tensor) -> list[nn.Module]:
        """1 x 1 with ``P``, the kernel with ``K``, 1 x 1 with ``U`` and the bias, as three plain layers."""
        groups, around = self.groups, (self.kernel_size, self.stride, self.padding, self.dilation)
        middle: Any = self.dense(len(P), len(K), *around, groups=groups, bias=False, padding_mode=self.padding_mode)
        return [
            filled(self.dense(self.in_channels, len(P), 1, groups=groups, bias=False), P, None),
            filled(middle, K, None),
            filled(self.dense(len(K), self.rows, 1, groups=groups, bias=self.bias is not None), U, self.bias),
        ]

    def _ones(self) -> list[int]:
        """The kernel size of a 1 x 1 convolution."""
        return [1] * self.dims


def keep_order(y: Tensor, x: Tensor) -> Tensor:
    """y in channels_last order if x is: an image that is made or picked from x comes out in the usual one, in which all that follows is
    slower. A compiler finds its own order, and where torch.fx traces there is none."""
    if isinstance(x, torch.fx.Proxy) or y.dim() != 4 or torch.compiler.is_compiling():
        return y
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return y.contiguous(memory_format=torch.channels_last) if last else y


def by_side(padding: Any) -> tuple[Any, Any]:
    """A two-dimensional padding as that of a convolution along the first side and of one along the second."""
    return (padding, padding) if isinstance(padding, str | int) else ((padding[0], 0), (0, padding[1]))
