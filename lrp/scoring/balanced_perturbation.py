"""Between how far the network's output moves and which share of its layer that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_float
from lrp.matrices import Factors, LayerMatrix
from lrp.scoring.moments import Moments


@dataclass(frozen=True)
class BalancedPerturbation:
    """The perturbation E ||y - y_b||^2 over the sum of those of all components of the layer to the power ``balance``: 0 is
    the perturbation, 1 its share of the layer.

    The sum of the perturbations of a removed set says what it does where it is small. Where most of a network goes, each layer
    passes on a part only of what it is given, and what counts of a layer is nearer to its share; the half was the best of
    those tried (experiments/README.md, "Without a gradient step").
    """

    name: ClassVar[str] = "balanced_perturbation"
    balance: float = 0.5

    def __post_init__(self) -> None:
        check_float("scorer.balance", self.balance, least=0)

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        scores = [block.second.sum(1).double() for block in moments()]
        total = {name: torch.zeros((), dtype=torch.float64) for name in matrices}
        for factor, score in zip(factors, scores):
            total[factor.block.layer] += score.sum().to(total[factor.block.layer])
        tiny = torch.finfo(torch.float64).tiny  # a layer without effect scores 0
        return [score / total[factor.block.layer].to(score).clamp(min=tiny) ** self.balance for factor, score in zip(factors, scores)]
