"""Which components stay: one order over all of them, an exact budget."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import ClassVar

import numpy as np

from lrp.cost.costs import Costs
from lrp.errors import check_bool
from lrp.matrices import Block
from lrp.selection.base import Selection


@dataclass(frozen=True)
class GlobalSelection(Selection):
    """Drop the lowest score first, over all blocks of all layers, until the budget holds (section 3.3 of the paper).

    A block of p x q at rank r costs r (p + q) parameters, or pq where that is not less: then it keeps all its components and
    is stored whole. As few components as possible are dropped: restoring the last one dropped would exceed the budget.
    Equal scores are dropped in order of position (layer, block, component). ``per_parameter`` divides a score by its
    component's cost; false is the paper's order.

    ``round_to`` makes the ranks of blocks that are not stored whole multiples of it (those below it may stay): each is
    lowered to the next multiple, and what that frees is spent on raising ranks by whole multiples, highest score first.
    ``break_even=measured`` leaves a layer dense at ranks at which it would be no faster than the dense layer, timed on this
    machine with ``batch_size`` examples; what a layer frees by becoming low-rank is spent in the same way.
    """

    name: ClassVar[str] = "global"
    per_parameter: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("selection.per_parameter", self.per_parameter)

    def ranks(self, blocks: Sequence[Block], parts: Sequence[np.ndarray], costs: Costs, share: Fraction) -> list[int]:
        """As of ``Selection.ranks``: one order over all layers."""
        budget = share * sum(costs.dense.values())
        if self.per_parameter:
            parts = [part / unit for part, unit in zip(parts, costs.unit)]
        ranks = [block.rank for block in blocks]
        owner = np.repeat(np.arange(len(blocks)), ranks)
        stored = self._drop(blocks, ranks, owner[np.argsort(np.concatenate(parts), kind="stable")], costs, budget)
        if self.round_to > 1 or costs.break_even:
            self._spend(blocks, ranks, [np.sort(part) for part in parts], costs, budget, stored)
        return ranks

    def _drop(self, blocks: Sequence[Block], ranks: list[int], owners: np.ndarray, costs: Costs, budget: Fraction) -> int:
        """Lower ``ranks`` by the least number of components, dropped in this order, that brings the cost within the budget."""
        held = dict(costs.dense)
        stored = sum(held.values())
        if costs.even(ranks):  # of millions of weights one after the other would take minutes
            freed = np.cumsum(np.array(costs.unit)[owners])
            gone = owners[: 1 + np.searchsorted(freed, ceil(stored - budget)) if stored > budget else 0]
            for i, count in enumerate(np.bincount(gone, minlength=len(ranks)).tolist()):
                ranks[i] -= count
                stored -= count * costs.unit[i]
            return stored
        for i in owners:
            if stored <= budget:
                break
            ranks[i] -= 1
            name = blocks[i].layer
            now = costs.layer(name, ranks)
            stored += now - held[name]
            held[name] = now
        assert stored <= budget, "no components left, yet over budget"
        return stored

    def _spend(
        self, blocks: Sequence[Block], ranks: list[int], rising: list[np.ndarray], costs: Costs, budget: Fraction, stored: int
    ) -> None:
        """Round ``ranks`` down, then up while the budget admits it; ``rising``: the scores of each block in ascending order."""
        step = self.round_to
        whole = costs.is_whole(blocks, ranks)
        before = {name: costs.layer(name, ranks) for name in costs.blocks}
        for i, rank in enumerate(ranks):
            if not whole[i] and rank > step:
                ranks[i] -= rank % step
        stored += sum(costs.layer(name, ranks) - cost for name, cost in before.items())
        waiting = [(-rising[i][-ranks[i] - 1], i) for i in range(len(ranks)) if not whole[i] and ranks[i] < len(rising[i])]
        heapq.heapify(waiting)
        while waiting:
            _, i = heapq.heappop(waiting)
            name, rank = blocks[i].layer, ranks[i]
            cost = costs.layer(name, ranks)
            ranks[i] += step - rank % step
            more = costs.layer(name, ranks) - cost
            if ranks[i] > costs.limit[i] or costs.is_dense(name, ranks) or stored + more > budget:
                ranks[i] = rank
                continue
            stored += more
            heapq.heappush(waiting, (-rising[i][-ranks[i] - 1], i))
