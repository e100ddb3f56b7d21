"""The singular value decomposition of a block: the best approximation of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block


@dataclass(frozen=True)
class Svd:
    """The thin SVD (section 3.1 of the paper); looks at weights only."""

    name: ClassVar[str] = "svd"
    needs: ClassVar[tuple[str, ...]] = ()
    ties: ClassVar[bool] = True

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
        """U (p, R), S (R,) and V (R, q) = S Vh of one block of the layer's matrix ``weight`` (M, N), float64."""
        U, S, Vh = torch.linalg.svd(block.of(weight), full_matrices=False)
        return U, S, Vh.mul_(S[:, None])  # in place: all layers together are held

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        return float(torch.linalg.matrix_norm(block.of(weight), ord=2))
