"""Chance: the lower bound of every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_seed
from lrp.evidence import Evidence
from lrp.matrices import Components


@dataclass(frozen=True)
class Random:
    """Uniform in [0, 1), drawn by ``seed`` alone."""

    name: ClassVar[str] = "random"
    reads_outputs: ClassVar[bool] = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed("scorer.seed", self.seed)

    def __call__(self, factors: Sequence[Components], evidence: Evidence) -> list[Tensor]:
        """A number in [0, 1) for each component, (R,) of each block."""
        generator = torch.Generator().manual_seed(self.seed)
        return [torch.rand(len(factor.S), generator=generator, dtype=torch.float64) for factor in factors]
