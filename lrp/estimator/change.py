"""What one layer does with the components of one of its blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lrp.layer.build import kind_of
from lrp.matrices import Block, Components
from lrp.network.frozen import FrozenNetwork


def outer_vectors(network: FrozenNetwork, factor: Any) -> Tensor:
    """u_i of a block as rows (R, M of the block), with what folding the batch norm multiplied the layer's rows by; float64."""
    return _scaled(network, factor.block, factor.U)


def _scaled(network: FrozenNetwork, block: Block, U: Tensor) -> Tensor:
    rows = U.T
    if block.layer in network.scale:
        rows = rows * network.scale[block.layer][block.rows].double().cpu()
    return rows


def changes(network: FrozenNetwork, factor: Components, which: slice, x: Tensor) -> Tensor:
    """u_i (v_i . x), what the layer's output loses without component i, for some components: (components, B, ..., M) of a
    Linear, (components, B, M, H', W') of a convolution."""
    block = factor.block
    module = network.modules[block.layer]
    kind = kind_of(module)
    U, V = factor.pair(which)
    z = kind.inner_values(module, *kind.inner_filters(module, block, V.to(module.weight)), x)
    u = _scaled(network, block, U).to(z)
    rows = torch.zeros(len(u), kind.rows(module), dtype=z.dtype, device=z.device)
    rows[:, block.rows] = u
    return kind.outer_products(z, rows)
