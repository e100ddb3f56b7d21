"""Convolutions in spatial form whose first factor is in pivoted storage."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from lrp.form.spatial import SpatialForm
from lrp.matrices import LayerMatrix


class SpatialPivotedForm(SpatialForm):
    """As spatial, in r^2 numbers less: what r of the pairs of a channel and a row of the kernel count is not stored. It runs as spatial."""

    name: ClassVar[str] = "spatial_pivoted"

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """As spatial, one group alone."""
        return super().fits(dense, matrix) and matrix.groups == 1

    def size(self, matrix: LayerMatrix, kernel: tuple[int, int], rank: Any) -> Any:
        """As of spatial."""
        return super().size(matrix, kernel, rank) - rank * rank
