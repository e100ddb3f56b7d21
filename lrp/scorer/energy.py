"""The share of a layer's energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Energy:
    """S^2 over the sum of S^2 of all components of all the layer's blocks (BALF, arXiv 2509.25136): the scores of a layer sum
    to 1, in whichever metric its blocks were decomposed."""

    name: ClassVar[str] = "energy"
    reads_outputs: ClassVar[bool] = False

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """The shares (R,) of each block's components."""
        total = {name: torch.zeros((), dtype=torch.float64) for name in evidence.matrices}
        for factor in factors:
            total[factor.block.layer] += factor.S.square().sum()
        tiny = torch.finfo(torch.float64).tiny  # a layer of zeros scores 0
        return [factor.S.square() / total[factor.block.layer].clamp(min=tiny) for factor in factors]
