"""A layer whose rows, indices or input channels lie in clusters, each of low rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric
from lrp.form.matrix import Matrix, MatrixPlan
from lrp.layer.build import kind_of
from lrp.layer.clusters import Clustered
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix, kept_rank


def clustered_form(dense: nn.Module, matrix: LayerMatrix) -> type[Clustered] | None:
    """The layer that stores this one in clusters; None where there is none: of another kind, or of several groups."""
    form = kind_of(dense).form(dense, Clusters.name) if matrix.groups == 1 else None
    assert form is None or issubclass(form, Clustered)
    return form


@dataclass(frozen=True, kw_only=True)
class ClusterPlan(MatrixPlan):
    """A layer as the kept components of its clusters. ``factors`` are those of the matrix whose points lie in the order ``members``.

    Attributes:
        members: Which point lies at each place (points,) int64.
    """

    members: Tensor

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer in clusters, or ``dense`` itself where every cluster is stored whole."""
        if self.untouched:
            return dense
        made: Any = clustered_form(dense, self.matrix)
        layer = made(dense, [(factor.block, kept_rank(mask)) for factor, mask in zip(self.factors, self.keep, strict=True)])
        layer.set_members(self.members)
        layer.fill(dense, self.factors, self.keep)
        return layer.train(dense.training)

    def rows(self) -> list[dict[str, Any]]:
        """One row per cluster."""
        return [row if self.untouched else {**row, "form": Clusters.name} for row in super().rows()]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        found = super().summary()
        return found if self.untouched else {**found, "what": "clusters"}


class Clusters:
    """What compensation has to know of layers in clusters; which clusters there are says a method."""

    name: ClassVar[str] = "clusters"

    def refit(self, module: Clustered, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice, Tensor]]:
        """As of ``Matrix``, of the matrix whose points lie in the order of the clusters."""
        M, N = fit.W.shape
        rows = module.arranged(torch.arange(M)[:, None].expand(M, N))[:, 0]
        columns = module.arranged(torch.arange(N).expand(M, N))[0]
        G = gradients and gradients.of(rows, fit.W)
        new = torch.empty_like(fit.W)
        for span, part in Matrix().refit(module, fit.arranged(rows, columns), G):
            new[rows[span][:, None], columns] = part
        yield slice(0, M), new
