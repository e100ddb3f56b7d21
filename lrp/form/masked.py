"""A layer that stays dense, with zeros where components were removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lrp.decomposition.metric import OutputMetric
from lrp.form.matrix import MatrixPlan
from lrp.layer_statistics.regression import Regression


@dataclass(frozen=True)
class MaskPlan(MatrixPlan):
    """A layer as the kept components of its blocks, stored whole: ``params`` counts the weights that may be other than zero."""

    form: ClassVar[str] = "masked"

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs: zeros are multiplied too."""
        return self.matrix.macs(self.positions)

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        found = super().summary()
        return {**found, "what": "masked"} if found["what"] == "low rank" else found


class MaskedForm:
    """What can be done to a masked layer once it is there; no layer chooses this form, the decomposition does."""

    name: ClassVar[str] = MaskPlan.form

    def refit(self, module: Any, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice, Tensor]]:
        """Row by row the least squares solution among the weights that are left, rows with the same ones together; ``gradients`` change
        nothing where each row is fitted alone."""
        new = torch.zeros_like(fit.W)
        mask = module.mask.to(fit.W.device)
        for group in range(fit.groups):
            rows = torch.arange(len(mask), device=mask.device)[fit.rows_of(group)]
            supports, belongs = mask[rows].unique(dim=0, return_inverse=True)
            for i, support in enumerate(supports):
                alike = rows[belongs == i]
                if bool(support.any()):
                    new[alike[:, None], support.nonzero()[:, 0]] = fit.within(alike, support)
        module.set_matrix(new)
        for group in range(fit.groups):
            yield fit.rows_of(group), new[fit.rows_of(group)]
