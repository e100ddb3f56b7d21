"""Low-rank convolutions, run as thin convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import LowRank
from lrp.matrices import Block

MOST_JOINED = 24  # rank of a row range, all its blocks together, up to which a convolution in blocks runs as one while it trains


class _LowRankConv(LowRank):
    """A convolution (input (B, C_in, ...) or (C_in, ...)) from the kept components of its blocks.

    A block runs as a convolution on the input channels that its columns touch; where it begins or ends inside a channel's
    kernel the missing entries are filled with zeros as it runs. The components then meet in one 1 x 1 convolution.
    """

    attributes = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    convolve: ClassVar[Any]

    def __init__(self, dense: nn.Conv1d | nn.Conv2d, blocks: Sequence[tuple[Block, int | None]]) -> None:
        super().__init__(dense, blocks)
        self.dims = len(dense.kernel_size)
        self._around = list(dense._reversed_padding_repeated_twice)  # last dimension first, "same" resolved

    @property
    def weight(self) -> Tensor:
        return self.weight_matrix().view(self.rows, -1, *self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            input = F.pad(input, self._around, mode=self.padding_mode)
        return self._apply_rows(input, -1 - self.dims)

    def _columns(self, x, weight, row, start, stop, bias=None):
        channels, filters = column_filters(weight, start, stop, self.kernel_size)
        dim, count = -1 - self.dims, filters.shape[1]
        if count != self.in_channels:
            group = row * self.groups // self.rows
            x = x.narrow(dim, group * (self.in_channels // self.groups) + channels.start, count)
        padding = self.padding if self.padding_mode == "zeros" else 0
        return self.convolve(x, filters, bias, self.stride, padding, self.dilation)

    def _inner(self, x, g, row, dim):
        spans = self.factored[g]
        if not self.training or len(spans) < 2 or self.U[str(g)].shape[1] > MOST_JOINED:
            return super()._inner(x, g, row, dim)
        # one convolution with zeros between the blocks: multiplies more, but its gradients read and write x once, not once a block
        count, rows = self.in_channels // self.groups, []
        for b, span in enumerate(spans):
            channels, filters = column_filters(self.V[f"{g}_{b}"], *span, self.kernel_size)
            rows.append(F.pad(filters, (0, 0) * self.dims + (channels.start, count - channels.stop)))
        return self._columns(x, torch.cat(rows).flatten(1), row, 0, self.columns)

    def _outer(self, inner, U, bias):
        return self.convolve(inner, U.view(*U.shape, *[1] * self.dims), bias)

    def _nothing(self, x, rows, bias):
        size = []
        for d in range(self.dims):
            at = 2 * (self.dims - 1 - d)
            around = self._around[at] + self._around[at + 1] if self.padding_mode == "zeros" else 0
            length = x.shape[d - self.dims] + around - self.dilation[d] * (self.kernel_size[d] - 1) - 1
            size.append(length // self.stride[d] + 1)
        out = x.new_zeros(*x.shape[: -1 - self.dims], rows, *size)
        return out if bias is None else out + bias.view(-1, *[1] * self.dims)


class LowRankConv1d(_LowRankConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) from the kept components of its blocks."""

    convolve = staticmethod(F.conv1d)


class LowRankConv2d(_LowRankConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) from the kept components of its blocks."""

    convolve = staticmethod(F.conv2d)


def column_filters(weight: Tensor, start: int, stop: int, kernel_size: tuple[int, ...]) -> tuple[slice, Tensor]:
    """The columns [start, stop) of a convolution's matrix, ``weight`` (r, stop - start), as filters (r, channels, kh, kw) on the
    input channels that they touch. Where they begin or end inside a channel's kernel, zeros fill it."""
    size = math.prod(kernel_size)
    first, last = start // size, -(-stop // size)
    before, after = start - first * size, last * size - stop
    if before or after:
        weight = F.pad(weight, (before, after))
    return slice(first, last), weight.view(len(weight), last - first, *kernel_size)
