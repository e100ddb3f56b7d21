"""Convolutions and their low-rank form, run as thin convolutions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from lrp.layer.base import LowRank
from lrp.layer.clusters import Clustered
from lrp.layer.compressed import filled
from lrp.layer.compressed_conv import CompressedConv, keep_order
from lrp.layer.filters import FiltersConv1d, FiltersConv2d
from lrp.layer.kind import LayerKind
from lrp.layer.masked import MaskedConv1d, MaskedConv2d
from lrp.layer.nested import NestedConv2d
from lrp.layer.permuted import Permuted
from lrp.layer.pivoted import PivotedConv1d, PivotedConv2d
from lrp.layer.spatial import SpatialConv2d
from lrp.layer.spatial_pivoted import SpatialPivotedConv2d
from lrp.layer.stored import RowRange
from lrp.layer.tucker2 import Tucker2Conv1d, Tucker2Conv2d
from lrp.layer.tucker2_pivoted import Tucker2PivotedConv1d, Tucker2PivotedConv2d
from lrp.matrices import Block

MOST_JOINED = 24  # rank of a row range, all its blocks together, up to which a convolution in blocks runs as one while it trains


class _LowRankConv(CompressedConv, LowRank):
    """A convolution (input (B, C_in, ...) or (C_in, ...)) from the kept components of its blocks.

    A block runs as a convolution on the input channels that its columns touch; where it begins or ends inside a channel's
    kernel the missing entries are filled with zeros as it runs. The components then meet in one 1 x 1 convolution.
    """

    own = (*LowRank.own, *CompressedConv.own)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        if self.padding_mode != "zeros":
            input, _ = self._padded(input)
        return self._apply_rows(input, -1 - self.dims)

    def _columns(self, x, weight, row, start, stop, bias=None):
        channels, filters = column_filters(weight, start, stop, self.kernel_size)
        dim, count = -1 - self.dims, channels.stop - channels.start
        if count != self.in_channels:
            group = row * self.groups // self.rows
            x = x.narrow(dim, group * (self.in_channels // self.groups) + channels.start, count)
        padding = self.padding if self.padding_mode == "zeros" else 0
        return self.convolve(x, filters, bias, self.stride, padding, self.dilation)

    def _inner(self, x: Tensor, rows: RowRange, dim: int) -> Tensor:
        if not self.training and self._groups_alike(rows):  # one call, where hundreds of blocks would be hundreds
            return self._grouped(x, rows)
        if not self.training or len(rows.factored) < 2 or rows.rank > MOST_JOINED:
            return super()._inner(x, rows, dim)
        # one convolution with zeros between the blocks: multiplies more, but its gradients read and write x once, not once a block
        count, joined = self.in_channels // self.groups, []
        for part in rows.factored:
            channels, filters = column_filters(self.V[part.key], *part.columns, self.kernel_size)
            joined.append(F.pad(filters, (0, 0) * self.dims + (channels.start, count - channels.stop)))
        return self._columns(x, torch.cat(joined).flatten(1), rows.start, 0, self.columns)

    def _groups_alike(self, rows: RowRange) -> bool:
        """Whether the blocks are equal groups of all input channels, each at one rank, so that they are one grouped convolution."""
        parts = rows.factored
        if len(parts) < 2 or self.groups > 1 or self.in_channels % len(parts):
            return False
        size = self.columns // len(parts)
        return all(part.columns == (i * size, (i + 1) * size) and part.rank == parts[0].rank for i, part in enumerate(parts))

    def _grouped(self, x: Tensor, rows: RowRange) -> Tensor:
        """V of blocks that read equal groups of ``x``'s channels, one after the other, each at one rank."""
        filters = torch.cat([self.V[part.key] for part in rows.factored])
        padding = self.padding if self.padding_mode == "zeros" else 0
        filters = filters.view(len(filters), -1, *self.kernel_size)
        return self.convolve(x, filters, None, self.stride, padding, self.dilation, len(rows.factored))

    def _outer(self, inner, U, bias):
        return self.convolve(inner, U.view(U.shape[0], U.shape[1], *self._ones()), bias)

    def _thin(self, weight, bias):
        around: Any = (self.kernel_size, self.stride, self.padding, self.dilation)
        layer = self.dense(self.in_channels, len(weight), *around, bias=bias is not None, padding_mode=self.padding_mode)
        return filled(layer, weight, bias)

    def _pointwise(self, weight, bias):
        return filled(self.dense(weight.shape[1], len(weight), 1, bias=bias is not None), weight, bias)

    def _nothing(self, x, rows, bias):
        size = []
        for d in range(self.dims):
            at = 2 * (self.dims - 1 - d)
            around = self._around[at] + self._around[at + 1] if self.padding_mode == "zeros" else 0
            length = x.shape[d - self.dims] + around - self.dilation[d] * (self.kernel_size[d] - 1) - 1
            size.append(length // self.stride[d] + 1)
        out = keep_order(x.new_zeros(x.shape[: -1 - self.dims] + (rows, *size)), x)
        return out if bias is None else out + bias.view(-1, *[1] * self.dims)


class LowRankConv1d(_LowRankConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) from the kept components of its blocks."""

    dense = nn.Conv1d
    convolve = staticmethod(F.conv1d)


class LowRankConv2d(_LowRankConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) from the kept components of its blocks."""

    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)


class PermutedConv1d(Permuted, LowRankConv1d):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) whose blocks are cut from its matrix in another order."""


class PermutedConv2d(Permuted, LowRankConv2d):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) whose blocks are cut from its matrix in another order."""


class _ClusteredConv(Clustered, _LowRankConv):
    """A convolution of one group (input (B, C_in, ...) or (C_in, ...)) whose input channels lie in clusters, each of low rank: they are
    reordered, and read by one grouped convolution where all clusters are of one size and rank."""

    own = (*Clustered.own, *CompressedConv.own)
    gathers = True

    @property
    def points(self) -> int:
        """Input channels."""
        return self.in_channels

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        return super().forward(input.index_select(-1 - self.dims, self.order))

    def _inner(self, x: Tensor, rows: RowRange, dim: int) -> Tensor:
        sizes = {part.block.shape[1] for part in rows.factored}
        alike = len({part.rank for part in rows.factored}) == len(sizes) == 1
        if len(rows.factored) < 2 or not alike or len(rows.factored) * max(sizes) < self.columns:
            return super()._inner(x, rows, dim)
        return self._grouped(x, rows)


class ClusteredConv1d(_ClusteredConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) of clusters of input channels."""

    dense = nn.Conv1d
    convolve = staticmethod(F.conv1d)


class ClusteredConv2d(_ClusteredConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) of clusters of input channels."""

    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)


class ConvKind(LayerKind):
    """Conv1d, Conv2d and, as far as it is left as it is, Conv3d: the matrix is the weight folded to C_out x (C_in*kh*kw)."""

    forms = (
        LowRankConv1d, LowRankConv2d, PermutedConv1d, PermutedConv2d, Tucker2Conv1d, Tucker2Conv2d, SpatialConv2d, NestedConv2d,
        PivotedConv1d, PivotedConv2d, Tucker2PivotedConv1d, Tucker2PivotedConv2d, SpatialPivotedConv2d, MaskedConv1d, MaskedConv2d,
        FiltersConv1d, FiltersConv2d, ClusteredConv1d, ClusteredConv2d,
    )  # fmt: skip
    uncompressed = (nn.Conv3d,)
    reads_around = True
    feature_dim = 1

    def unsupported(self, module: Any) -> str | None:  # noqa: D102
        reason = super().unsupported(module)
        return "depthwise" if reason is None and 1 < module.groups == module.in_channels else reason

    def apart(self, module: Any, value: Tensor) -> Tensor:
        """One map after the other; one that came without a batch is a batch of one."""
        return value[None] if value.dim() == 1 + len(module.kernel_size) else value

    def columns(self, module: Any, x: Tensor, where: Tensor) -> Tensor:  # noqa: D102
        each = torch.arange(len(x), device=x.device)[:, None]
        where = where.to(x.device)
        around = _around(module)
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, around, mode=mode) if any(around) else x
        spatial = range(len(module.kernel_size))
        sizes = [(x.shape[2 + d] - module.dilation[d] * (module.kernel_size[d] - 1) - 1) // module.stride[d] + 1 for d in spatial]
        strides = x.stride()
        steps = [strides[2 + d] * module.stride[d] for d in spatial]  # from one position to the next
        inner = [strides[2 + d] * module.dilation[d] for d in spatial]  # from one entry of the kernel to the next
        shape = (len(x), *sizes, x.shape[1], *module.kernel_size)
        windows = x.as_strided(shape, (strides[0], *steps, strides[1], *inner), x.storage_offset())
        return windows[(each, *torch.unravel_index(where, sizes))].reshape(where.numel(), module.groups, -1)

    def inner_filters(self, module: Any, block: Block, V: Tensor) -> tuple[slice | Tensor, Tensor]:  # noqa: D102
        channels, filters = column_filters(V, block.col_start, block.col_stop, module.kernel_size)
        group = block.row_start * module.groups // module.out_channels
        first = group * (module.in_channels // module.groups) + channels.start
        span = slice(first, first + filters.shape[1])
        if block.order is None or block.order.channels is None:
            return span, filters
        return torch.tensor(block.order.channels[span]), filters

    def inner_values(self, module: Any, channels: slice | Tensor, filters: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        padding = module.padding
        if filters.shape[1] != x.shape[1] or isinstance(channels, Tensor):
            x = x[:, channels]
        if module.padding_mode != "zeros":
            x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), 0
        convolve = F.conv1d if len(module.kernel_size) == 1 else F.conv2d
        return convolve(x, filters, None, module.stride, padding, module.dilation)

    def outer_products(self, inner: Tensor, rows: Tensor) -> Tensor:  # noqa: D102
        return rows.view(len(rows), 1, -1, *[1] * (inner.dim() - 2)) * inner.transpose(0, 1)[:, :, None]

    def folded_for_scoring(self, module: nn.Module, norm: nn.Module) -> nn.Module | None:  # noqa: D102
        if type(module) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            return fuse_conv_bn_eval(module, norm)
        return None

    def breaks_channels_last(self, module: Any) -> bool:
        """The gradient of the weight of a 1 x 1 convolution with stride 2 and 2 to 7 input channels is written outside its memory
        in channels_last order on a CPU, by oneDNN on AVX2 (torch 2.14); in the usual order it is not."""
        known = (nn.Conv2d, LowRankConv2d, ClusteredConv2d, PivotedConv2d, MaskedConv2d, Tucker2Conv2d, Tucker2PivotedConv2d)
        if not isinstance(module, known) or tuple(module.kernel_size) != (1, 1) or max(module.stride) == 1:
            return False
        if isinstance(module, (Tucker2Conv2d, Tucker2PivotedConv2d)):
            return module.ranks[0] < 8
        if isinstance(module, (nn.Conv2d, PivotedConv2d, MaskedConv2d)):
            return module.in_channels // module.groups < 8
        return any(stop - start < 8 for rows in module.ranges for start, stop in (part.columns for part in rows.parts))


def _around(module: Any) -> list[int]:
    """What padding adds, the last dimension first and "same" resolved."""
    return module._around if isinstance(module, CompressedConv) else module._reversed_padding_repeated_twice


def column_filters(weight: Tensor, start: int, stop: int, kernel_size: tuple[int, ...]) -> tuple[slice, Tensor]:
    """The columns [start, stop) of a convolution's matrix, ``weight`` (r, stop - start), as filters (r, channels, kh, kw) on the
    input channels that they touch. Where they begin or end inside a channel's kernel, zeros fill it."""
    size = math.prod(kernel_size)
    first, last = start // size, -(-stop // size)
    before, after = start - first * size, last * size - stop
    if before or after:
        weight = F.pad(weight, (before, after))
    return slice(first, last), weight.view(weight.shape[0], last - first, *kernel_size)
