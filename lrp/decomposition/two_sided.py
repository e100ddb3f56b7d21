"""The decomposition of what a layer's outputs do to the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.decomposition.metric import metric_factors, metric_norm
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block


@dataclass(frozen=True)
class TwoSided:
    """``activation`` in the metric of the output gradients G = E[g g^T], g the gradients of the network's outputs with respect
    to the layer's: Q are the eigenvectors of G^1/2 W C W^T G^1/2, U = G^-1/2 Q, V = Q^T G^1/2 W. S_i^2 is the change of the
    network's outputs without component i, to first order and as if gradients and inputs were independent of each other and
    from position to position. Eigenvalues of G below 1e-4 of the largest are raised to that.
    """

    name: ClassVar[str] = "two_sided"
    needs: ClassVar[tuple[str, ...]] = ("inputs", "gradients")
    ties: ClassVar[bool] = True

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
        """U (p, R), S (R,) and V (R, q) of one block of the layer's matrix ``weight`` (M, N), float64."""
        assert statistics is not None, "``needs`` asks for them"
        return metric_factors(block.of(weight), statistics.products(weight, block), statistics.gradients_of(block))

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        assert statistics is not None, "``needs`` asks for them"
        return metric_norm(statistics.products(weight, block), statistics.gradients_of(block))
