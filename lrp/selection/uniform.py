"""The same sparsity in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from lrp.cost.costs import Costs
from lrp.matrices import Block
from lrp.selection.global_ import GlobalSelection


@dataclass(frozen=True)
class UniformSelection(GlobalSelection):
    """In each layer alone, drop the lowest score first until that layer's own budget, (1 - sparsity) of its dense cost, holds.

    The baseline of allocations: scores are only compared within a layer. All options mean what they mean to GlobalSelection,
    applied layer by layer; a layer whose budget does not hold one component keeps none.
    """

    name: ClassVar[str] = "uniform"

    def ranks(self, blocks: Sequence[Block], parts: Sequence[np.ndarray], costs: Costs, share: Fraction) -> list[int]:
        """As of ``Selection.ranks``: layer by layer."""
        found: dict[int, int] = {}
        shares = self.shares(costs, share)
        for name, places in costs.blocks.items():
            among, theirs = [blocks[i] for i in places], [parts[i] for i in places]
            found.update(zip(places, super().ranks(among, theirs, only(costs, name), shares[name])))
        return [found[i] for i in range(len(blocks))]

    def shares(self, costs: Costs, share: Fraction) -> dict[str, Fraction]:
        """Of each layer the share in [0, 1] of its dense cost that may be stored, where it is ``share`` of all layers together."""
        return dict.fromkeys(costs.blocks, share)


def only(costs: Costs, name: str) -> Costs:
    """The costs of one layer, its blocks numbered from 0."""
    places = costs.blocks[name]
    unit, whole, limit = ([values[i] for i in places] for values in (costs.unit, costs.whole, costs.limit))
    break_even = {name: costs.break_even[name]} if name in costs.break_even else {}
    return Costs(unit, whole, limit, {name: list(range(len(places)))}, {name: costs.dense[name]}, break_even)
