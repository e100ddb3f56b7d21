"""The most score that fits a budget, by a price on every parameter."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

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
        # -score per cost, block (of a layer its first), its new rank (0: the layer dense), its rank (the layer's cost) so far
        waiting: list[tuple[float, int, int, int]] = []

        def offer(i: int) -> None:
            rank, full = ranks[i], len(values[i]) - 1
            if rank > costs.limit[i]:
                return
            for target in {rank + (1 if rank < self.round_to else self.round_to), full}:
                if target <= costs.limit[i] or target == full:
                    more = (costs.whole[i] if target > costs.limit[i] else target * costs.unit[i]) - rank * costs.unit[i]
                    push(values[i][target] - values[i][rank], more, i, target, rank)

        def offer_dense(name: str) -> None:
            held = costs.layer(name, ranks)
            gain = sum(values[i][-1] - values[i][ranks[i]] for i in costs.blocks[name])
            if not costs.is_dense(name, ranks):
                push(gain, costs.dense[name] - held, costs.blocks[name][0], 0, held)

        def push(gain: float, more: int, *move: int) -> None:
            if gain >= 0:
                heapq.heappush(waiting, (-gain / more if more > 0 else -np.inf, *move))

        for i in range(len(ranks)):
            offer(i)
        for name in costs.blocks:
            offer_dense(name)
        stored = sum(costs.layer(name, ranks) for name in costs.blocks)
        while waiting:
            _, i, target, seen = heapq.heappop(waiting)
            name = blocks[i].layer
            held = costs.layer(name, ranks)
            if seen != (ranks[i] if target else held):
                continue  # offered before it, or its layer, last changed
            moved = {i: target} if target else {j: len(values[j]) - 1 for j in costs.blocks[name]}
            before = {j: ranks[j] for j in moved}
            for j, rank in moved.items():
                ranks[j] = rank
            now = costs.layer(name, ranks)
            too_high = target and costs.is_dense(name, ranks)  # that is a move of the whole layer
            if too_high or stored + now - held > budget:
                for j, rank in before.items():
                    ranks[j] = rank
                continue
            stored += now - held
            offer(i)
            if target:
                offer_dense(name)
