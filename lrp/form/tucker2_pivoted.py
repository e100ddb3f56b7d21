"""Convolutions in Tucker-2 form whose thin factors are in pivoted storage."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from lrp.form.tucker2 import Tucker2Form
from lrp.matrices import LayerMatrix


class Tucker2PivotedForm(Tucker2Form):
    """As Tucker-2, in q^2 + r^2 numbers less: q channels of the input and r of the output are there themselves."""

    name: ClassVar[str] = "tucker2_pivoted"

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """As Tucker-2, one group alone."""
        return super().fits(dense, matrix) and matrix.groups == 1

    def sizes(self, matrix: LayerMatrix, q: Any, r: Any) -> tuple[Any, Any, Any]:
        """As of Tucker-2."""
        return q * (matrix.channels - q), r * q * matrix.kernel, r * (matrix.shape[0] - r)
