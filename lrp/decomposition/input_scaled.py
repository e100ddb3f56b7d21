"""The SVD of a block whose columns are scaled by how large their inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.errors import check_float
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block

FLOOR = 1e-6  # of the largest scale: a column that reads zeros alone is divided by its scale, too


@dataclass(frozen=True)
class InputScaled:
    """The SVD of W D, D the diagonal of (E|x_j|)^``alpha`` over the inputs x of the layer; D is undone in V (ASVD, Yuan et al.,
    arXiv 2312.05821, with the mean of |x|; public code of others takes the largest |x|). With ``alpha=0`` it is the plain SVD.

    Here each input channel at each kernel position of a convolution has a scale of its own, which the paper, of Linear layers, leaves
    open. A scale is at least 1e-6 of the block's largest; the authors' code adds 1e-6.

    Attributes:
        alpha: The power, >= 0.
    """

    name: ClassVar[str] = "input_scaled"
    needs: ClassVar[tuple[str, ...]] = ("magnitudes",)
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_float("decomposition.alpha", self.alpha, least=0)

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
        """U (p, R), S (R,) and V (R, q) of one block of the layer's matrix ``weight`` (M, N), float64; S are the singular values of W D."""
        scale = self._scale(block, statistics)
        U, S, Vh = torch.linalg.svd(block.of(weight) * scale, full_matrices=False)
        return U, S, Vh * S[:, None] / scale

    def metric(self, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor | None, Tensor | None]:
        """D^2 of the block's columns, a diagonal."""
        return self._scale(block, statistics) ** 2, None

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        return float(torch.linalg.matrix_norm(block.of(weight) * self._scale(block, statistics), ord=2))

    def _scale(self, block: Block, statistics: LayerStatistics | None) -> Tensor:
        """D (q,)."""
        assert statistics is not None, "``needs`` asks for them"
        scale = statistics.magnitudes_of(block) ** self.alpha
        largest = float(scale.max())
        return scale.clamp(min=FLOOR * largest) if largest > 0 else torch.ones_like(scale)
