"""What compressed convolutions of every form share."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from lrp.layer.compressed import Compressed


class CompressedConv(Compressed):
    """A convolution (input (B, C_in, ...) or (C_in, ...), output (..., M, ...)) in some form."""

    attributes = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    own = ("dims", "_around")  # beside those of the form
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

    def _ones(self) -> list[int]:
        """The kernel size of a 1 x 1 convolution."""
        return [1] * self.dims
