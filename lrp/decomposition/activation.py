"""The decomposition of a layer's outputs instead of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lrp.decomposition.metric import metric_factors, metric_norm
from lrp.layer_statistics.base import LayerStatistics
from lrp.matrices import Block


@dataclass(frozen=True)
class Activation:
    """The best rank r for the block's outputs on calibration data, E ||(W - W_r) x||^2, for every r at once: U = Q, the
    eigenvectors of W C W^T with C = E[x x^T], and V = Q^T W. C is never inverted (principal components of the outputs, as in
    Zhang et al. 2016, section 2.2, and BALF, arXiv 2509.25136).
    """

    name: ClassVar[str] = "activation"
    needs: ClassVar[tuple[str, ...]] = ("inputs",)

    def __call__(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor, Tensor, Tensor]:
        """U (p, R), S (R,) and V (R, q) of one block of the layer's matrix ``weight`` (M, N), float64; S_i^2 is E ||u_i (v_i x)||^2."""
        assert statistics is not None, "``needs`` asks for them"
        return metric_factors(block.of(weight), statistics.products(weight, block), None)

    def metric(self, block: Block, statistics: LayerStatistics | None) -> tuple[Tensor | None, Tensor | None]:
        """C of the block's columns."""
        assert statistics is not None, "``needs`` asks for them"
        return statistics.inputs_of(block), None

    def norm(self, weight: Tensor, block: Block, statistics: LayerStatistics | None) -> float:
        """The largest S of a block."""
        assert statistics is not None, "``needs`` asks for them"
        return metric_norm(statistics.products(weight, block), None)
