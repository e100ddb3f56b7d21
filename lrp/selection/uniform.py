"""The same sparsity in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.costs import Costs, make_costs
from lrp.matrices import Block
from lrp.selection.global_ import GlobalSelection


@dataclass(frozen=True)
class UniformSelection(GlobalSelection):
    """In each layer alone, drop the lowest score first until that layer's own budget, (1 - sparsity) of its dense cost, holds.

    The baseline of allocations: scores are only compared within a layer. All options mean what they mean to GlobalSelection,
    applied layer by layer; a layer whose budget does not hold one component keeps none.
    """

    name: ClassVar[str] = "uniform"

    def __call__(
        self, blocks: Sequence[Block], scores: Sequence[Tensor], sparsity: float, costs: Costs | None = None
    ) -> list[Tensor]:
        """Masks (R,) bool of the components kept, a block each; all of a block that is stored whole. ``costs``: parameters,
        unless given.

        Raises InputError for a sparsity outside [0, 1) and for scores that are not finite.
        """
        costs = costs or make_costs(blocks)
        masks: dict[int, Tensor] = {}
        for name, places in costs.blocks.items():
            among, theirs = [blocks[i] for i in places], [scores[i] for i in places]
            masks.update(zip(places, super().__call__(among, theirs, sparsity, only(costs, name))))
        return [masks[i] for i in range(len(blocks))]


def only(costs: Costs, name: str) -> Costs:
    """The costs of one layer, its blocks numbered from 0."""
    places = costs.blocks[name]
    unit, whole, limit = ([values[i] for i in places] for values in (costs.unit, costs.whole, costs.limit))
    break_even = {name: costs.break_even[name]} if name in costs.break_even else {}
    return Costs(unit, whole, limit, {name: list(range(len(places)))}, {name: costs.dense[name]}, break_even)
