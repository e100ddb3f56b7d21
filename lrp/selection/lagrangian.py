"""The most score that fits a budget, by a price on every parameter."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, NamedTuple

import numpy as np

from lrp.cost.costs import Costs
from lrp.matrices import Block
from lrp.selection.base import Selection
from lrp.selection.frontier import LayerFrontier


@dataclass(frozen=True)
class LagrangianSelection(Selection):
    """Maximise the sum of the kept scores under the budget (Lagrangian relaxation, Everett 1963; as a choice of one way to
    store each layer it is the multiple-choice knapsack of Sinha and Zoltners 1979).

    At a multiplier mu, the price of a parameter, each block takes the rank that maximises the sum of its r highest scores
    - mu cost(r), or is stored whole, or its layer is left dense. The least mu whose choice fits the budget is used: where
    that choice exactly meets the budget no other keeps more score. What is left is spent on the rise with the most score per
    cost that fits. The sum is less than the best possible by no more than the one step of a layer at this mu that did not
    fit. (With ``break_even=measured`` this holds for layers of one block; see LayerFrontier.) Of equal slopes the
    first (layer, block) rises first; a component whose score is negative is kept only where its block is stored whole.

    ``round_to`` and ``break_even`` restrict the choices; the multiplier prices components, so scores are not divided by costs.
    """

    name: ClassVar[str] = "lagrangian"

    def ranks(self, blocks: Sequence[Block], parts: Sequence[np.ndarray], costs: Costs, share: Fraction) -> list[int]:
        """As of ``Selection.ranks``: the most score that fits the budget."""
        budget = share * sum(costs.dense.values())
        ranks = [block.rank for block in blocks]
        if share < 1:  # else all stay, those of negative scores too
            values = [np.concatenate([[0.0], np.cumsum(np.sort(part)[::-1])]) for part in parts]
            ranks = self._price(values, costs, budget)
            self._spend(blocks, ranks, values, costs, budget)
        return ranks

    def _price(self, values: Sequence[np.ndarray], costs: Costs, budget: Fraction) -> list[int]:
        """The ranks at the least multiplier whose choice fits.

        All multipliers at which a choice changes are the slopes of the layers' frontiers: those above the least one are taken.
        """
        frontiers = [LayerFrontier(name, values, costs, self.round_to) for name in costs.blocks]
        more = np.concatenate([np.diff(frontier.cost) for frontier in frontiers])
        slope = np.concatenate([np.diff(frontier.value) / np.diff(frontier.cost) for frontier in frontiers])
        layer = np.repeat(np.arange(len(frontiers)), [len(frontier.cost) - 1 for frontier in frontiers])
        order = np.argsort(-slope, kind="stable")
        count = np.searchsorted(np.cumsum(more[order]), int(budget), side="right")  # costs are whole numbers
        taken = np.bincount(layer[order[:count]], minlength=len(frontiers))
        chosen: dict[int, int] = {}
        for frontier, steps in zip(frontiers, taken):
            chosen |= frontier.ranks(steps)
        return [chosen[i] for i in range(len(values))]

    def _spend(self, blocks: Sequence[Block], ranks: list[int], values: Sequence[np.ndarray], costs: Costs, budget: Fraction) -> None:
        """Raise ``ranks`` while the budget admits it: a block to its next rank or whole, or a layer to dense."""
        rises = _Rises(blocks, ranks, values, costs, self.round_to)
        stored = sum(costs.layer(name, ranks) for name in costs.blocks)
        while (rise := rises.best()) is not None:
            name = blocks[rise.block].layer
            held = costs.layer(name, ranks)
            before = rises.make(rise)
            more = costs.layer(name, ranks) - held
            too_high = rise.rank > 0 and costs.is_dense(name, ranks)  # that is a rise of the whole layer
            if too_high or stored + more > budget:
                for i, rank in before.items():
                    ranks[i] = rank
                continue
            stored += more
            rises.offer_block(rise.block)
            if rise.rank:
                rises.offer_layer(name)


class _Rise(NamedTuple):
    """A block that could be kept at a higher rank, or a layer that could be left dense; the tuples sort by what is done first.

    Attributes:
        order: -score gained per cost.
        block: Its place; of a layer that of its first block.
        rank: The block's new rank; 0: the layer is left dense.
        seen: The block's rank, or the layer's cost, when this was offered.
    """

    order: float
    block: int
    rank: int
    seen: int


class _Rises:
    """What could still be raised, from the ``ranks`` that hold at the time."""

    def __init__(self, blocks: Sequence[Block], ranks: list[int], values: Sequence[np.ndarray], costs: Costs, step: int) -> None:
        self.blocks, self.ranks, self.values, self.costs, self.step = blocks, ranks, values, costs, step
        self.waiting: list[_Rise] = []
        for i in range(len(ranks)):
            self.offer_block(i)
        for name in costs.blocks:
            self.offer_layer(name)

    def offer_block(self, i: int) -> None:
        """A block to its next rank, and stored whole."""
        rank, full = self.ranks[i], len(self.values[i]) - 1
        limit, unit = self.costs.limit[i], self.costs.unit[i]
        if rank > limit:
            return
        for target in {rank + (1 if rank < self.step else self.step), full}:
            if target <= limit or target == full:
                more = (self.costs.whole[i] if target > limit else target * unit) - rank * unit
                self._push(self.values[i][target] - self.values[i][rank], more, i, target, rank)

    def offer_layer(self, name: str) -> None:
        """A layer left dense."""
        held = self.costs.layer(name, self.ranks)
        gain = sum(self.values[i][-1] - self.values[i][self.ranks[i]] for i in self.costs.blocks[name])
        if not self.costs.is_dense(name, self.ranks):
            self._push(gain, self.costs.dense[name] - held, self.costs.blocks[name][0], 0, held)

    def _push(self, gain: float, more: int, block: int, rank: int, seen: int) -> None:
        if gain >= 0:
            heapq.heappush(self.waiting, _Rise(-gain / more if more > 0 else -math.inf, block, rank, seen))

    def best(self) -> _Rise | None:
        """The rise with the most score per cost, None where nothing is left; one offered before its layer last changed is not."""
        while self.waiting:
            rise = heapq.heappop(self.waiting)
            name = self.blocks[rise.block].layer
            if rise.seen == (self.ranks[rise.block] if rise.rank else self.costs.layer(name, self.ranks)):
                return rise
        return None

    def make(self, rise: _Rise) -> dict[int, int]:
        """Raise the ranks; what those that were moved were before."""
        places = self.costs.blocks[self.blocks[rise.block].layer]
        moved = {rise.block: rise.rank} if rise.rank else {i: len(self.values[i]) - 1 for i in places}
        before = {i: self.ranks[i] for i in moved}
        for i, rank in moved.items():
            self.ranks[i] = rank
        return before
