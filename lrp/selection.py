"""Which components stay: one order over all of them, an exact budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lrp.errors import InputError, check_bool, check_sparsity
from lrp.matrices import Block


@dataclass(frozen=True)
class GlobalSelection:
    """Drop the lowest score first, over all blocks of all layers, until the parameters fit (section 3.3 of the paper).

    A block of p x q at rank r costs r (p + q), or pq where that is not less: then it keeps all its components and is
    stored whole. As few components as possible are dropped: restoring the last one dropped would exceed the budget.
    Equal scores are dropped in order of position (layer, block, component). ``per_parameter`` divides a score by its
    component's p + q; false is the paper's order.
    """

    name: ClassVar[str] = "global"
    per_parameter: bool = False

    def __post_init__(self) -> None:
        check_bool("selection.per_parameter", self.per_parameter)

    def __call__(self, blocks: Sequence[Block], scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
        """Masks (R,) bool of the components kept, a block each; all of a block that is stored whole.

        Raises InputError for a sparsity outside [0, 1) and for scores that are not finite.
        """
        check_sparsity("sparsity.grid", sparsity)
        ranks = [block.rank for block in blocks]
        assert [len(score) for score in scores] == ranks
        owner = np.repeat(np.arange(len(blocks)), ranks)
        flat = torch.cat([score.cpu().double() for score in scores]).numpy()
        for i in np.unique(owner[~np.isfinite(flat)]):
            raise InputError(f"layer {blocks[i].layer}: block {blocks[i].index} has scores that are not finite")
        if self.per_parameter:
            flat = flat / np.array([sum(block.shape) for block in blocks])[owner]
        order = np.argsort(flat, kind="stable")
        keep = np.ones(len(flat), dtype=bool)
        keep[order[: self._dropped(blocks, owner[order], sparsity)]] = False
        masks = [torch.from_numpy(part.copy()) for part in np.split(keep, np.cumsum(ranks)[:-1])]
        return [torch.ones_like(mask) if block.is_dense(int(mask.sum())) else mask for block, mask in zip(blocks, masks)]

    def _dropped(self, blocks: Sequence[Block], owners: np.ndarray, sparsity: float) -> int:
        """The least number of components, dropped in this order, that brings the parameters within the budget."""
        total = stored = sum(block.size for block in blocks)
        budget = (1 - Fraction(str(sparsity))) * total  # as the user wrote it: 0.9 leaves a tenth, not 0.0999...
        ranks = [block.rank for block in blocks]
        if stored <= budget:
            return 0
        for count, i in enumerate(owners, start=1):
            ranks[i] -= 1
            stored += blocks[i].cost(ranks[i]) - blocks[i].cost(ranks[i] + 1)
            if stored <= budget:
                return count
        raise AssertionError("no components left, yet over budget")
