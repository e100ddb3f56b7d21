"""Transposed convolutions and their low-rank form: a thin transposed convolution, then 1 x 1."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import LowRank
from lrp.layer.compressed import Compressed, filled
from lrp.layer.compressed_conv import CompressedConv
from lrp.layer.conv import ConvKind, column_filters
from lrp.layer.masked import Masked


def folded(weight: Tensor, groups: int) -> Tensor:
    """A weight (C_in, C_out of a group, ...) as its layer matrix (C_out, C_in of a group * kernel)."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)


def unfolded(matrix: Tensor, shape: torch.Size, groups: int) -> Tensor:
    """The way back, to a weight of this shape."""
    return matrix.reshape(groups, shape[1], shape[0] // groups, *shape[2:]).transpose(1, 2).reshape(shape)


class _LowRankConvTranspose(CompressedConv, LowRank):
    """A transposed convolution (input (B, C_in, ...) or (C_in, ...)) from the kept components of its blocks."""

    attributes = (*CompressedConv.attributes, "output_padding")
    own = (*LowRank.own, *CompressedConv.own)
    file_format = 3
    pointwise: ClassVar[Any]
    points: ClassVar[type[nn.Module]]
    output_padding: tuple[int, ...]

    @staticmethod
    def matrix_of(dense: Any) -> Tensor:
        """The weight of a dense layer as its layer matrix (M, N)."""
        return folded(dense.weight.detach(), dense.groups)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """The layer's output (..., M, ...), of this size if one is asked for."""
        padding: Any = self.output_padding
        if output_size is not None:
            sides: tuple[Any, ...] = (self.stride, self.padding, self.kernel_size, self.dims, self.dilation)
            padding = nn.ConvTranspose2d._output_padding(self, input, output_size, *sides)  # type: ignore[arg-type]
        return self._apply_rows((input, tuple(padding)), -1 - self.dims)  # type: ignore[arg-type]

    def _columns(self, x: Any, weight, row, start, stop, bias=None):
        input, padding = x
        channels, filters = column_filters(weight, start, stop, self.kernel_size)
        dim, count = -1 - self.dims, channels.stop - channels.start
        if count != self.in_channels:
            group = row * self.groups // self.rows
            input = input.narrow(dim, group * (self.in_channels // self.groups) + channels.start, count)
        return self.convolve(input, filters.transpose(0, 1), bias, self.stride, self.padding, padding, 1, self.dilation)

    def _outer(self, inner, U, bias):
        return self.pointwise(inner, U.view(*U.shape, *self._ones()), bias)

    def _thin(self, weight, bias):
        around: Any = (self.kernel_size, self.stride, self.padding, self.output_padding)
        layer: Any = self.dense(self.in_channels, len(weight), *around, bias=bias is not None, dilation=self.dilation)
        return filled(layer, unfolded(weight, layer.weight.shape, 1), bias)

    def _pointwise(self, weight, bias):
        points: Any = self.points
        return filled(points(weight.shape[1], len(weight), 1, bias=bias is not None), weight, bias)

    def _nothing(self, x: Any, rows, bias):
        input, padding = x
        size = []
        for d in range(self.dims):
            length = (input.shape[d - self.dims] - 1) * self.stride[d] - 2 * int(self.padding[d])
            size.append(length + self.dilation[d] * (self.kernel_size[d] - 1) + padding[d] + 1)
        out = input.new_zeros(input.shape[: -1 - self.dims] + (rows, *size))
        return out if bias is None else out + bias.view(-1, *self._ones())

    def _weight_shape(self) -> tuple[int, ...]:
        return self.in_channels, self.rows // self.groups, *self.kernel_size

    def _dense_weight(self) -> Tensor:
        return unfolded(self.weight_matrix(), torch.Size(self._weight_shape()), self.groups)


class LowRankConvTranspose1d(_LowRankConvTranspose):
    """A ConvTranspose1d (input (B, C_in, L), output (B, M, L')) from the kept components of its blocks."""

    dense = nn.ConvTranspose1d
    convolve = staticmethod(F.conv_transpose1d)
    pointwise = staticmethod(F.conv1d)
    points = nn.Conv1d


class LowRankConvTranspose2d(_LowRankConvTranspose):
    """A ConvTranspose2d (input (B, C_in, H, W), output (B, M, H', W')) from the kept components of its blocks."""

    dense = nn.ConvTranspose2d
    convolve = staticmethod(F.conv_transpose2d)
    pointwise = staticmethod(F.conv2d)
    points = nn.Conv2d


class _MaskedConvTranspose(CompressedConv, Masked):
    """A transposed convolution (input (B, C_in, ...) or (C_in, ...)) some of whose weights are zero."""

    attributes = _LowRankConvTranspose.attributes
    own = (*Masked.own, *CompressedConv.own)
    matrix_of = staticmethod(_LowRankConvTranspose.matrix_of)
    output_padding: tuple[int, ...]
    _weight_shape = _LowRankConvTranspose._weight_shape
    _dense_weight = _LowRankConvTranspose._dense_weight

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """The layer's output (..., M, ...), of this size if one is asked for."""
        padding: Any = self.output_padding
        if output_size is not None:
            sides: tuple[Any, ...] = (self.stride, self.padding, self.kernel_size, self.dims, self.dilation)
            padding = nn.ConvTranspose2d._output_padding(self, input, output_size, *sides)  # type: ignore[arg-type]
        weight = self._dense_weight()
        return self.convolve(input, weight, self.bias, self.stride, self.padding, tuple(padding), self.groups, self.dilation)

    def _plain(self) -> nn.Module:
        around: Any = (self.kernel_size, self.stride, self.padding, self.output_padding)
        return self.dense(self.in_channels, self.rows, *around, self.groups, bias=self.bias is not None, dilation=self.dilation)


class MaskedConvTranspose1d(_MaskedConvTranspose):
    """A ConvTranspose1d (input (B, C_in, L), output (B, M, L')) some of whose weights are zero."""

    dense = nn.ConvTranspose1d
    convolve = staticmethod(F.conv_transpose1d)


class MaskedConvTranspose2d(_MaskedConvTranspose):
    """A ConvTranspose2d (input (B, C_in, H, W), output (B, M, H', W')) some of whose weights are zero."""

    dense = nn.ConvTranspose2d
    convolve = staticmethod(F.conv_transpose2d)


class ConvTransposeKind(ConvKind):
    """ConvTranspose1d and ConvTranspose2d: the matrix is that of the convolution that gives the same on the input with stride - 1 zeros
    between its entries, C_out x (C_in*kh*kw)."""

    forms = (LowRankConvTranspose1d, LowRankConvTranspose2d, MaskedConvTranspose1d, MaskedConvTranspose2d)
    uncompressed = (nn.ConvTranspose3d,)
    sized = True

    def rows(self, module: Any) -> int:  # noqa: D102
        return module.out_channels

    def multiplied_at(self, module: Any, positions: int, shape: tuple[int, ...]) -> int:  # noqa: D102
        return math.prod(shape) // module.in_channels

    def as_matrix(self, module: Any, value: Tensor) -> Tensor:  # noqa: D102
        return folded(value, module.groups)

    def as_weight(self, module: Any, matrix: Tensor) -> Tensor:  # noqa: D102
        return unfolded(matrix, module.weight.shape, module.groups)

    @torch.no_grad()
    def set_rows(self, dense: Any, rows: slice, values: Tensor) -> None:  # noqa: D102
        matrix = folded(dense.weight, dense.groups).clone()
        matrix[rows] = values.to(matrix)
        dense.weight.copy_(self.as_weight(dense, matrix))

    def columns(self, module: Any, x: Tensor, where: Tensor) -> Tensor:
        """Of the stuffed input, whose windows are read backwards."""
        where = where.to(x.device)
        dims = len(module.kernel_size)
        size = [(n - 1) * step + 1 for n, step in zip(x.shape[2:], module.stride, strict=True)]
        stuffed = x.new_zeros(*x.shape[:2], *size)
        stuffed[(..., *(slice(None, None, step) for step in module.stride))] = x
        around: list[int] = []
        for d in range(dims):
            reach = module.dilation[d] * (module.kernel_size[d] - 1)
            around = [reach - module.padding[d], reach - module.padding[d] + module.output_padding[d], *around]
        windows = F.pad(stuffed, around)  # a negative number cuts off
        sizes = []
        for d in range(dims):
            reach = module.dilation[d] * (module.kernel_size[d] - 1)
            windows = windows.unfold(2 + d, reach + 1, 1)[..., :: module.dilation[d]].flip(-1)
            sizes.append(windows.shape[2 + d])
        windows = windows.movedim(1, 1 + dims)  # (B, positions, C_in, kernel)
        each = torch.arange(len(x), device=x.device)[:, None]
        return windows[(each, *torch.unravel_index(where, sizes))].reshape(where.numel(), module.groups, -1)

    def inner_values(self, module: Any, channels: slice | Tensor, filters: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        if filters.shape[1] != x.shape[1]:
            x = x[:, channels]
        convolve = F.conv_transpose1d if len(module.kernel_size) == 1 else F.conv_transpose2d
        return convolve(x, filters.transpose(0, 1), None, module.stride, module.padding, module.output_padding, 1, module.dilation)

    @torch.no_grad()
    def scale_rows(self, module: Any, scale: Tensor, shift: Tensor) -> None:  # noqa: D102
        if isinstance(module, Compressed):
            module.scale_rows(scale, shift)
            return
        self.set_rows(module, slice(None), folded(module.weight, module.groups) * scale[:, None])
        bias = shift if module.bias is None else module.bias * scale + shift
        module.bias = nn.Parameter(bias.to(module.weight), requires_grad=module.weight.requires_grad)

    def folded_for_scoring(self, module: nn.Module, norm: nn.Module) -> nn.Module | None:  # noqa: D102
        return None

    def breaks_channels_last(self, module: Any) -> bool:  # noqa: D102
        return False
