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
TIME = "milliseconds"  # a budget of methods that choose forms


def check_budget(value: object, known: Sequence[str] = BUDGETS) -> None:
    """Check the unit that a sparsity is a share of.

    Raises:
        InputError: For anything but those that a method knows.
    """
    if value not in known:
        raise InputError("budget", value, f"choose one of {', '.join(known)}")


def check_budget_of(value: object) -> None:
    """Check what a sparsity is a share of.

    Raises:
        InputError: For anything but the two that there are.
    """
    if value not in ("layers", "network"):
        raise InputError("budget_of", value, "choose layers or network")


def kept_share(sparsity: float) -> Fraction:
    """1 - sparsity as the user wrote it: 0.9 leaves a tenth, not 0.0999..."""
    return 1 - Fraction(str(sparsity))


@dataclass(frozen=True)
class Costs:
    """What blocks and layers cost, in the unit of the budget: parameters or multiply-accumulates.

    Attributes:
        unit: Of each block, the cost of one component.
        whole: Of each block, its cost stored whole.
        limit: Of each block, the largest rank at which it is stored as factors, which are then smaller than the whole in parameters
            and in the unit of the budget.
        blocks: Of each layer, the places of its blocks among all blocks.
        dense: Of each layer, its cost when it is left dense.
        break_even: Of each layer where one was measured, the sum of its blocks' ranks above which it is left dense, since it would
            not be faster.
        sides: Of each layer the sizes of its weight: outputs, inputs, and those of a convolution's kernel, where they are known.
    """

    unit: list[int]
    whole: list[int]
    limit: list[int]
    blocks: dict[str, list[int]]
    dense: dict[str, int]
    break_even: Mapping[str, int] = field(default_factory=dict)
    sides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def layer(self, name: str, ranks: Sequence[int]) -> int:
        """The cost of a layer; ``ranks`` are of all blocks of all layers."""
        if self.is_dense(name, ranks):
            return self.dense[name]
        return sum(self.whole[i] if ranks[i] > self.limit[i] else ranks[i] * self.unit[i] for i in self.blocks[name])

    def even(self, ranks: Sequence[int]) -> bool:
        """Whether each component that goes frees as much as any other of its block, down from all of them, the ``ranks`` of all blocks."""
        whole = all(unit * rank == whole for unit, rank, whole in zip(self.unit, ranks, self.whole))
        return whole and not self.break_even and sum(self.dense.values()) == sum(self.whole)

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
    """The costs of these blocks in the unit of the budget; multiply-accumulates (``macs``) need the ``candidates``' positions."""
    check_budget(budget)
    places: dict[str, list[int]] = {}
    unit, whole, limit = [], [], []
    for i, block in enumerate(blocks):
        places.setdefault(block.layer, []).append(i)
        if budget == "params":
            unit.append(block.unit)
            whole.append(block.size)
        else:
            assert candidates is not None
            matrix, positions = candidates.matrices[block.layer], candidates.positions[block.layer]
            unit.append(block_macs(block, 1, matrix, positions))
            whole.append(block_macs(block, None, matrix, positions))
        largest = min((block.size - 1) // block.unit, (whole[-1] - 1) // unit[-1])
        limit.append(largest)
    sizes = {name: sum(blocks[i].size for i in among) for name, among in places.items()}
    sides = {name: (max(blocks[i].row_stop for i in among), max(blocks[i].col_stop for i in among)) for name, among in places.items()}
    if candidates is not None:
        held = {name: candidates.matrices[name] for name in sizes}
        sides = {name: (len(matrix.weight), matrix.channels, *matrix.kernel_size) for name, matrix in held.items()}
    dense = sizes
    if budget != "params" and candidates is not None:
        dense = {name: candidates.matrices[name].macs(candidates.positions[name]) for name in sizes}
    return Costs(unit, whole, limit, places, dense, break_even or {}, sides)
