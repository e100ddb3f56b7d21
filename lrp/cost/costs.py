"""What stored components cost, in parameters or in multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from lrp.cost.count import block_macs
from lrp.errors import InputError
from lrp.matrices import Block
from lrp.network.survey import Candidates

BUDGETS = ("params", "macs")


def check_budget(value: object) -> None:
    if value not in BUDGETS:
        raise InputError("budget", value, "choose one of params, macs")


def kept_share(sparsity: float) -> Fraction:
    """1 - sparsity as the user wrote it: 0.9 leaves a tenth, not 0.0999..."""
    return 1 - Fraction(str(sparsity))


@dataclass(frozen=True)
class Costs:
    """Of each block: the cost of a component (``unit``), of the block stored whole (``whole``), and the largest rank at which
    it is stored as factors (``limit``), which are smaller than the whole in parameters and in the unit of the budget. Of each
    layer its ``blocks``, its cost when it is left ``dense`` and, where one was measured, the sum of its blocks' ranks above
    which it is left dense because it would not be faster (``break_even``).
    """

    unit: list[int]
    whole: list[int]
    limit: list[int]
    blocks: dict[str, list[int]]
    dense: dict[str, int]
    break_even: Mapping[str, int] = field(default_factory=dict)

    def layer(self, name: str, ranks: Sequence[int]) -> int:
        """The cost of a layer; ``ranks`` are of all blocks of all layers."""
        if self.is_dense(name, ranks):
            return self.dense[name]
        return sum(self.whole[i] if ranks[i] > self.limit[i] else ranks[i] * self.unit[i] for i in self.blocks[name])

    def is_dense(self, name: str, ranks: Sequence[int]) -> bool:
        """Whether all blocks of a layer are stored whole, so that it stays as it is."""
        places = self.blocks[name]
        if all(ranks[i] > self.limit[i] for i in places):
            return True
        if name not in self.break_even:
            return False
        return sum(min(ranks[i], self.limit[i] + 1) for i in places) > self.break_even[name]  # above its limit a block is stored whole

    def is_whole(self, blocks: Sequence[Block], ranks: Sequence[int]) -> list[bool]:
        """Whether each block is stored whole."""
        dense = {name: self.is_dense(name, ranks) for name in self.blocks}
        return [dense[block.layer] or rank > limit for block, rank, limit in zip(blocks, ranks, self.limit)]


def make_costs(
    blocks: Sequence[Block], budget: str = "params", candidates: Candidates | None = None, break_even: Mapping[str, int] | None = None
) -> Costs:
    """The costs of these blocks in the unit of the budget; multiply-accumulates (``macs``) need the layers' positions."""
    check_budget(budget)
    places: dict[str, list[int]] = {}
    unit, whole, limit = [], [], []
    for i, block in enumerate(blocks):
        places.setdefault(block.layer, []).append(i)
        if budget == "params":
            unit.append(sum(block.shape))
            whole.append(block.size)
        else:
            kernel, positions = candidates.matrices[block.layer].kernel, candidates.positions[block.layer]
            unit.append(block_macs(block, 1, kernel, positions))
            whole.append(block_macs(block, None, kernel, positions))
        largest = min((block.size - 1) // sum(block.shape), (whole[-1] - 1) // unit[-1])
        limit.append(largest)
    sizes = {name: sum(blocks[i].size for i in among) for name, among in places.items()}
    dense = {name: size * (1 if budget == "params" else candidates.positions[name]) for name, size in sizes.items()}
    return Costs(unit, whole, limit, places, dense, break_even or {})
