"""Chance: the lower bound of every score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_int
from lrp.estimator.moments import Moments
from lrp.matrices import Factors, LayerMatrix


@dataclass(frozen=True)
class Random:
    """Uniform in [0, 1), drawn by ``seed`` alone."""

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("scorer.seed", self.seed, 0)

    def __call__(
        self, matrices: Mapping[str, LayerMatrix], factors: Sequence[Factors], moments: Callable[[], list[Moments]]
    ) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return [torch.rand(len(factor.S), generator=generator, dtype=torch.float64) for factor in factors]
