"""What one layer does with the components of one of its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.conv import column_filters
from lrp.matrices import Block, Factors

if TYPE_CHECKING:
    from lrp.network.frozen import FrozenNetwork


def inner_filters(module: nn.Module, block: Block, V: Tensor) -> tuple[slice, Tensor]:
    """The rows of ``V`` (R, N of the block) in the shape of the layer's own weight, and the input channels that they read."""
    if isinstance(module, nn.Linear):
        return slice(block.col_start, block.col_stop), V
    channels, filters = column_filters(V, block.col_start, block.col_stop, module.kernel_size)
    group = block.row_start * module.groups // module.out_channels
    first = group * (module.in_channels // module.groups) + channels.start
    return slice(first, first + filters.shape[1]), filters


def inner_values(module: nn.Module, channels: slice, filters: Tensor, x: Tensor) -> Tensor:
    """v_i . x, v_i a row of V, at every position: (..., R) of a Linear, (B, R, H', W') of a convolution."""
    if isinstance(module, nn.Linear):
        return F.linear(x[..., channels], filters)
    padding = module.padding
    if filters.shape[1] != x.shape[1]:
        x = x[:, channels]
    if module.padding_mode != "zeros":
        x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), 0
    convolve = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
    return convolve(x, filters, None, module.stride, padding, module.dilation)


def outer_vectors(network: FrozenNetwork, factor: Factors) -> Tensor:
    """u_i of a block as rows (R, M of the block), with what folding the batch norm multiplied the layer's rows by; float64."""
    block = factor.block
    rows = factor.U.T
    if block.layer in network.scale:
        rows = rows * network.scale[block.layer][block.row_start : block.row_stop].double().cpu()
    return rows


def changes(network: FrozenNetwork, factor: Factors, which: slice, x: Tensor) -> Tensor:
    """u_i (v_i . x), what the layer's output loses without component i, for some components: (components, B, ..., M) of a
    Linear, (components, B, M, H', W') of a convolution."""
    module, block = network.modules[factor.block.layer], factor.block
    z = inner_values(module, *inner_filters(module, block, factor.V[which].to(x)), x)
    u = outer_vectors(network, factor)[which].to(x)
    rows = torch.zeros(len(u), len(module.weight), dtype=x.dtype, device=x.device)
    rows[:, block.row_start : block.row_stop] = u
    if isinstance(module, nn.Linear):
        return torch.einsum("b...r,rm->rb...m", z, rows)
    return rows.view(len(rows), 1, -1, *[1] * (z.dim() - 2)) * z.transpose(0, 1)[:, :, None]
