"""A layer as its matrix of some rank, in fewer numbers than its factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lrp.decomposition.metric import metric_factors
from lrp.form.base import Choices, ScoredLayer, lost_after, rank_grid
from lrp.form.unfolding import largest, shares
from lrp.layer.build import kind_of
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix


@dataclass(frozen=True)
class PivotedPlan:
    """A layer whose matrix has rank r.

    Attributes:
        matrix: The layer's matrix (M, N).
        positions: How often the layer computes its output for one example.
        rank: r.
        scores: The perturbations of the components, (R,).
    """

    matrix: LayerMatrix
    positions: int
    rank: int
    scores: Tensor

    @property
    def untouched(self) -> bool:
        """Never: the dense layer has another form."""
        return False

    @property
    def params(self) -> int:
        """Parameters stored for the layer's weight."""
        return self.rank * (sum(self.matrix.shape) - self.rank)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs."""
        return self.positions * self.params

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer with the components whose perturbations are the largest."""
        made: Any = kind_of(dense).form(dense, PivotedForm.name)
        layer = made(dense, self.rank)
        U, S, Vh = torch.linalg.svd(self.matrix.weight.double(), full_matrices=False)
        at = largest(self.scores, self.rank)
        layer.set_pair(U[:, at] * S[at], Vh[at])
        return layer.train(dense.training)

    def rows(self) -> list[dict[str, Any]]:
        """One row."""
        (M, N), full = self.matrix.shape, min(self.matrix.shape)
        kept = {"kept": self.rank, "full": full, "dense": False, "form": PivotedForm.name}
        return [{"layer": self.matrix.name, "block": 0, "shape": f"{M}x{N}", **kept}]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        return {
            "shape": "x".join(str(n) for n in self.matrix.shape),
            "what": "pivoted",
            "blocks": 1,
            "rank": self.rank,
            "full_rank": min(self.matrix.shape),
            "params_after": self.params,
            "macs_after": self.macs,
        }


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
        matrix, (scores,) = layer.matrix, layer.outputs
        M, N = matrix.shape
        rank = rank_grid(min(M - 1, N - 1), layer.step, fine=max(M, N))
        params = rank * (M + N - rank)
        loss = layer.loss(shares(lost_after([scores])[rank], layer.total))

        def plan(i: int) -> PivotedPlan:
            return PivotedPlan(matrix, layer.positions, int(rank[i]), scores)

        return Choices(self.name, params, params * layer.positions, np.asarray(loss), plan)

    def refit(self, module: Any, fit: Regression, gradients: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """The best of its rank, reduced-rank regression (Izenman, 1975)."""
        best, metric = fit.solution(0)
        U, _, V = metric_factors(best, best @ metric @ best.T, None if gradients is None else gradients.to(fit.C))
        U, V = U[:, : module.rank], V[: module.rank]
        module.set_pair(U, V)
        yield slice(0, module.rows), U @ V
