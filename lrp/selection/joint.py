"""Which components stay: those without which the network's output moves least, all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lrp.cost.costs import Costs, make_costs
from lrp.errors import check_bool, check_float
from lrp.matrices import Block
from lrp.selection.base import Selection
from lrp.selection.global_ import GlobalSelection


@dataclass(frozen=True)
class JointSelection(Selection):
    """Greedily from the back: drop, one after the other, the component that increases ||D 1_S||^2 least per unit of its cost, where
    S are all that are dropped by then, until the budget holds. D (images * outputs, components) holds the first-order change that
    each component makes to the network's outputs on the scoring images; the scorer's scores are not used. Costs always count.

    Attributes:
        shrinkage: In [0, 1): the products of different components are multiplied by 1 - shrinkage, since with few images they are
            noise (1 would be the sum of the single perturbations).
        mean_free: Whether the mean over the images is taken off D first, which leaves what re-estimated biases cannot repair.
    """

    name: ClassVar[str] = "joint"
    reads_network: ClassVar[bool] = True
    shrinkage: float = 0.0
    mean_free: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_float("selection.shrinkage", self.shrinkage, least=0, below=1)
        check_bool("selection.mean_free", self.mean_free)

    def order(self, contributions: Sequence[Tensor], costs: Costs) -> list[Tensor]:
        """When each component is dropped, the first 0: (R,) per block, from D (B, K, R) of each block."""
        D = torch.cat(list(contributions), dim=2)
        if self.mean_free:
            D = D - D.mean(0)
        D = D.flatten(0, 1)
        products = (D.T @ D).float().cpu().numpy() / len(contributions[0])
        own = products.diagonal().astype(np.float64).copy()
        ranks = [part.shape[2] for part in contributions]
        unit = np.repeat(np.array(costs.unit, dtype=np.float64), ranks)
        cross = np.zeros(len(own))  # with all that are dropped by now, without shrinkage
        waiting = np.ones(len(own), dtype=bool)
        place = np.empty(len(own))
        for step in tqdm(range(len(own)), desc="joint selection", unit="component", leave=False, disable=None):
            increase = (own + 2 * (1 - self.shrinkage) * cross) / unit
            increase[~waiting] = np.inf
            i = int(increase.argmin())
            place[i] = step
            waiting[i] = False
            cross += products[i]
        return list(torch.from_numpy(place).split(ranks))

    def __call__(
        self,
        blocks: Sequence[Block],
        scores: Sequence[Tensor],
        sparsity: float,
        costs: Costs | None = None,
        contributions: Callable[[], list[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Masks (R,) bool of the components kept, one per block; ``contributions`` gives D (B, K, R) of each block.

        ``scores`` are not read. A sparsity outside [0, 1) raises an InputError.
        """
        assert contributions is not None
        costs = costs or make_costs(blocks)
        rounding = GlobalSelection(round_to=self.round_to, break_even=self.break_even, batch_size=self.batch_size)
        return rounding(blocks, self.order(contributions(), costs), sparsity, costs)
