"""Which components stay: one order over all of them, an exact budget."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lrp.costs import Costs, make_costs
from lrp.errors import InputError, check_bool, check_int, check_sparsity, reject
from lrp.matrices import Block


@dataclass(frozen=True)
class GlobalSelection:
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
    round_to: int = 1
    break_even: str = "params"
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_bool("selection.per_parameter", self.per_parameter)
        check_int("selection.round_to", self.round_to, 1)
        check_int("selection.batch_size", self.batch_size, 1)
        if self.break_even not in ("params", "measured"):
            raise reject("selection.break_even", self.break_even, "params or measured is needed")

    def __call__(
        self, blocks: Sequence[Block], scores: Sequence[Tensor], sparsity: float, costs: Costs | None = None
    ) -> list[Tensor]:
        """Masks (R,) bool of the components kept, a block each; all of a block that is stored whole. ``costs``: parameters,
        unless given.

        Raises InputError for a sparsity outside [0, 1) and for scores that are not finite.
        """
        check_sparsity("sparsity.grid", sparsity)
        costs = costs or make_costs(blocks)
        full = [block.rank for block in blocks]
        assert [len(score) for score in scores] == full
        owner = np.repeat(np.arange(len(blocks)), full)
        flat = torch.cat([score.cpu().double() for score in scores]).numpy()
        for i in np.unique(owner[~np.isfinite(flat)]):
            raise InputError(f"layer {blocks[i].layer}: block {blocks[i].index} has scores that are not finite")
        if self.per_parameter:
            flat = flat / np.array(costs.unit)[owner]
        order = np.argsort(flat, kind="stable")
        budget = (1 - Fraction(str(sparsity))) * sum(costs.dense.values())  # as the user wrote it: 0.9 leaves a tenth, not 0.0999...
        ranks = list(full)
        stored = self._drop(blocks, ranks, owner[order], costs, budget)
        parts = np.split(flat, np.cumsum(full)[:-1])
        lowest_first = [np.argsort(part, kind="stable") for part in parts]
        if self.round_to > 1 or costs.break_even:
            self._spend(blocks, ranks, [part[at] for part, at in zip(parts, lowest_first)], costs, budget, stored)
        masks = []
        for total, rank, at, whole in zip(full, ranks, lowest_first, costs.is_whole(blocks, ranks)):
            mask = torch.ones(total, dtype=torch.bool)
            if not whole:
                mask[torch.from_numpy(at[: total - rank].copy())] = False
            masks.append(mask)
        return masks

    def _drop(self, blocks: Sequence[Block], ranks: list[int], owners: np.ndarray, costs: Costs, budget: Fraction) -> int:
        """Lower ``ranks`` by the least number of components, dropped in this order, that brings the cost within the budget."""
        held = dict(costs.dense)
        stored = sum(held.values())
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
