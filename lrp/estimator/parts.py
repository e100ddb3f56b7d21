"""Components made ready to be contracted, and what layers did when a network ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrp.estimator.change import outer_vectors
from lrp.layer.kind import LayerKind
from lrp.matrices import Components, seen_by
from lrp.network.frozen import FrozenNetwork


@dataclass(frozen=True)
class Part:
    """One block, ready to be contracted: U (M, R) holds u_i of the ``rows``; ``place`` is its place among the factors."""

    place: int
    rows: slice | Tensor
    factor: Any
    U: Tensor


@dataclass(frozen=True)
class Call:
    """One call of a layer: its output, and v_i . x of the components of each of its blocks, (B, positions, R); of a call ``scattered``
    over rows that belong to no image, shaped as the layer gives them."""

    layer: str
    kind: LayerKind
    output: Tensor
    inner: list[Tensor]
    scattered: bool


def prepare(network: FrozenNetwork, factors: Sequence[Components]) -> dict[str, list[Part]]:
    """The blocks of each layer that runs, by its name."""
    parts: dict[str, list[Part]] = {}
    for place, factor in enumerate(factors):
        for use in network.uses(factor.block.layer):  # of one that never runs, as the graph shows, components change nothing
            own = seen_by(factor, use)
            U = outer_vectors(network, own).T.to(network.modules[use.name].weight).contiguous()
            part = Part(place, own.block.rows, own, U)
            parts.setdefault(use.name, []).append(part)
    return parts


def filters(kind: LayerKind, module: Any, factor: Any) -> tuple[slice | Tensor, Tensor]:
    """The input channels that a block reads, and its v_i in the shape of the layer's weight: made for each batch, since those of
    all layers together are as large as the network."""
    channels, filters = kind.inner_filters(module, factor.block, factor.V.to(module.weight))
    return channels, filters.contiguous(memory_format=torch.channels_last) if filters.dim() == 4 else filters


def channels_last(value: Tensor) -> Tensor:
    """Maps in the order in which the inner products are views."""
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
