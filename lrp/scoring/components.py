"""What one layer does with the components of one of its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layers import convolve_columns
from lrp.matrices import Block, Factors

if TYPE_CHECKING:
    from lrp.scoring.network import FrozenNetwork


def inner_values(module: nn.Module, block: Block, Vh: Tensor, x: Tensor) -> Tensor:
    """v_i . x at every position, for the rows of ``Vh`` (R, N of the block): (..., R) of a Linear, (B, R, H', W') of a convolution."""
    Vh = Vh.to(x)
    if isinstance(module, nn.Linear):
        return F.linear(x[..., block.col_start : block.col_stop], Vh)
    padding = module.padding
    if module.padding_mode != "zeros":
        x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), 0
    return convolve_columns(x, Vh, block.col_start, block.col_stop, None, module.kernel_size, module.stride, padding, module.dilation)


def outer_vectors(network: FrozenNetwork, factor: Factors) -> Tensor:
    """s_i u_i of a block as rows (R, M of the block), with what folding the batch norm multiplied the layer's rows by; float64."""
    block = factor.block
    rows = (factor.U * factor.S).T
    if block.layer in network.scale:
        rows = rows * network.scale[block.layer][block.row_start : block.row_stop].double().cpu()
    return rows


def changes(network: FrozenNetwork, factor: Factors, which: slice, x: Tensor) -> Tensor:
    """s_i u_i (v_i . x), what the layer's output loses without component i, for some components: (components, B, ..., M) of a
    Linear, (components, B, M, H', W') of a convolution."""
    module, block = network.modules[factor.block.layer], factor.block
    z = inner_values(module, block, factor.Vh[which], x)
    u = outer_vectors(network, factor)[which].to(x)
    rows = torch.zeros(len(u), len(module.weight), dtype=x.dtype, device=x.device)
    rows[:, block.row_start : block.row_stop] = u
    if isinstance(module, nn.Linear):
        return torch.einsum("b...r,rm->rb...m", z, rows)
    return rows[:, None, :, None, None] * z.transpose(0, 1)[:, :, None]
