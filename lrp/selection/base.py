"""What the selections share: their options, how scores and the sparsity are read, and the masks that ranks stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lrp.cost.costs import Costs, kept_share, make_costs
from lrp.errors import InputError, check_int, check_sparsity
from lrp.matrices import Block


@dataclass(frozen=True)
class Selection:
    """Which components stay at a sparsity. No selection ever exceeds a budget.

    Attributes:
        round_to: Ranks of blocks that are not stored whole are multiples of it, or below it.
        break_even: "params", or "measured": ranks at which a layer would be no faster than the dense one leave it dense, timed on
            this machine by whoever makes the costs (see ``Costs.break_even``).
        batch_size: Examples at a time when times are measured.
    """

    name: ClassVar[str]
    reads_network: ClassVar[bool] = False
    round_to: int = 1
    break_even: str = "params"
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_int("selection.round_to", self.round_to, 1)
        check_int("selection.batch_size", self.batch_size, 1)
        if self.break_even not in ("params", "measured"):
            raise InputError("selection.break_even", self.break_even, "choose one of params, measured")

    def __call__(
        self,
        blocks: Sequence[Block],
        scores: Sequence[Tensor],
        sparsity: float,
        costs: Costs | None = None,
        contributions: Callable[[], list[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Masks (R,) bool of the components kept, one for each block; all of a block that is stored whole.

        ``costs``: parameters, unless given. ``contributions`` gives the single changes of the network's outputs, D (B, K, R) of each
        block, to a selection that ``reads_network``.

        Raises:
            InputError: For a sparsity outside [0, 1) and for scores that are not finite.
        """
        check_sparsity("sparsity.grid", sparsity)
        costs = costs or make_costs(blocks)
        share = kept_share(sparsity)
        parts = read_scores(blocks, scores)
        return make_masks(blocks, parts, self.ranks(blocks, parts, costs, share), costs)

    def ranks(self, blocks: Sequence[Block], parts: Sequence[np.ndarray], costs: Costs, share: Fraction) -> list[int]:
        """Of each block how many of its highest scores ``parts`` (R,) stay, where ``share`` of the dense cost may be stored."""
        raise NotImplementedError


def read_scores(blocks: Sequence[Block], scores: Sequence[Tensor]) -> list[np.ndarray]:
    """The scores (R,) of each block as float64.

    Raises:
        InputError: Naming the layer, where a score is not finite.
    """
    parts = [score.cpu().double().numpy() for score in scores]
    assert [len(part) for part in parts] == [block.rank for block in blocks]
    for block, part in zip(blocks, parts):
        if not np.isfinite(part).all():
            raise InputError(f"layer {block.layer}: block {block.index} has scores that are not finite")
    return parts


def make_masks(blocks: Sequence[Block], parts: Sequence[np.ndarray], ranks: Sequence[int], costs: Costs) -> list[Tensor]:
    """Of each block the ``ranks[i]`` highest of its scores ``parts[i]`` (R,), of equal ones the later, or all where it is stored
    whole; masks (R,) bool."""
    masks = []
    for part, rank, whole in zip(parts, ranks, costs.is_whole(blocks, ranks)):
        mask = torch.ones(len(part), dtype=torch.bool)
        if not whole:
            mask[torch.from_numpy(np.argsort(part, kind="stable")[: len(part) - rank])] = False
        masks.append(mask)
    return masks
