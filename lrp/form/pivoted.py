"""A layer as its matrix of some rank, in fewer numbers than its factors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric, weighed
from lrp.form.base import Choices, ScoredLayer, Side, lost_after, rank_grid
from lrp.form.factored import FactoredPlan, Kept
from lrp.form.unfolding import shares
from lrp.layer.build import kind_of
from lrp.layer_statistics.base import quadratic
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix


class PivotedForm:
    """The layer's matrix of rank r in r (M + N - r) numbers: r of its rows, and how the others are made of them."""

    name: ClassVar[str] = "pivoted"
    perturbations: ClassVar[bool] = True

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """A layer of one group and more than one row."""
        return kind_of(dense).form(dense, self.name) is not None and matrix.groups == 1 and matrix.shape[0] > 1

    def inputs(self, dense: nn.Module, matrix: LayerMatrix) -> set[int]:
        """None: its components are those of the plain SVD."""
        return set()

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every rank below the full one: all of them are smaller than the dense layer."""
        matrix, (side,) = layer.matrix, layer.outputs
        M, N = matrix.shape
        rank = rank_grid(min(M - 1, N - 1), layer.step, fine=max(M, N))
        params = rank * (M + N - rank)
        work = layer.positions * np.stack([rank * N, rank * (M - rank), rank], 1)
        loss = layer.loss(shares(lost_after([side])[rank], layer.total))

        def plan(i: int) -> FactoredPlan:
            r, kept = int(rank[i]), Kept((M, N), int(rank[i]), min(M, N))
            macs = int(params[i]) * layer.positions
            return FactoredPlan(self.name, matrix, int(params[i]), macs, r, self.name, [kept], partial(_project, matrix, side))

        return Choices(self.name, params, params * layer.positions, work, np.asarray(loss), plan)

    def refit(self, module: Any, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice, Tensor]]:
        """The best of its rank, reduced-rank regression (Izenman, 1975)."""
        ((_, best, metric),) = fit.solutions()
        held = weighed(best, gradients and gradients.of(slice(0, module.rows), best))
        del best
        energy = [quadratic(held.H, metric)]
        del metric
        U, _, V = held.factors(energy.pop(), module.rank)
        del held
        if not fit.rough:  # pivots take as long as all before them, and change nothing but how the numbers are stored
            module.set_pair(U, V)
        new = U @ V
        del U, V
        yield slice(0, module.rows), new


def _project(matrix: LayerMatrix, side: Side, layer: Any) -> None:
    """Give a layer the components whose perturbations are the largest."""
    U = side.kept(layer.rank)
    layer.set_pair(U, U.T @ matrix.weight.double())
