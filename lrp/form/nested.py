"""Convolutions in Tucker-2 form whose core is in spatial form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric
from lrp.form.alternating import fit_sides, inner_metric, regressed, rounds
from lrp.form.base import Choices, ScoredLayer, lost_after, rank_grid
from lrp.form.factored import FactoredPlan, Kept
from lrp.form.spatial import between, kernel_size
from lrp.form.unfolding import shares
from lrp.layer.build import kind_of
from lrp.layer_statistics.base import quadratic
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix

RANKS = 16  # of each side that are tried, evenly apart


class NestedForm:
    """1 x 1 to q channels, a kernel as high as the layer's to s, one as wide to r, 1 x 1 to all.

    What three ranks lose is taken to be the sum of what each loses alone: q and r as in Tucker-2, s as in the spatial form.
    """

    name: ClassVar[str] = "nested"
    perturbations: ClassVar[bool] = True

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """A two-dimensional convolution of several input channels whose kernel is more than one entry high and wide."""
        return kind_of(dense).form(dense, self.name) is not None and min(kernel_size(dense)) > 1 and matrix.channels > 1

    def inputs(self, dense: nn.Module, matrix: LayerMatrix) -> set[int]:
        """The channels, and the channels at one height."""
        return {matrix.kernel, kernel_size(dense)[1]}

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every triple of ranks of a grid that is smaller than the dense layer."""
        matrix, (height, width) = layer.matrix, kernel_size(layer.dense)
        lost = [lost_after(scores) for scores in (layer.inputs[matrix.kernel], layer.inputs[width], layer.outputs)]
        steps = [max(1, (len(part) - 1) // RANKS) for part in lost]
        grids = [rank_grid(len(part) - 1, max(layer.step, step), fine=step) for part, step in zip(lost, steps)]
        q, s, r = (grid.flatten() for grid in np.meshgrid(*grids, indexing="ij"))
        groups, channels, rows = matrix.groups, matrix.channels, matrix.shape[0]
        parts = groups * q * channels, groups * s * q * height, groups * s * r * width, rows * r
        params = parts[0] + parts[1] + parts[2] + parts[3]
        places, middle, positions = layer.places, between(layer), layer.positions
        written = groups * (q * places + s * middle + r * positions)
        work = np.stack([places * parts[0], middle * parts[1], positions * parts[2], positions * parts[3], written], 1)
        macs = work[:, :4].sum(1)
        smaller = (params < matrix.weight.numel()) & (s <= np.minimum(q * height, r * width))
        q, s, r, params, macs, work = (values[smaller] for values in (q, s, r, params, macs, work))
        loss = layer.loss(shares(lost[0][q] + lost[1][s] + lost[2][r], layer.total))

        def plan(i: int) -> FactoredPlan:
            (M, N), own = matrix.shape, rows // groups
            ranks = int(q[i]), int(s[i]), int(r[i])
            sides = (
                Kept((M, N), ranks[2], min(own, N)),
                Kept((groups * channels, own * matrix.kernel), ranks[0], channels),
                Kept((ranks[2], ranks[0], matrix.kernel), ranks[1], matrix.kernel * min(ranks[0], ranks[2])),
            )
            what = "nested, {} in, {} between and {} out".format(*ranks)
            return FactoredPlan(self.name, matrix, int(params[i]), int(macs[i]), ranks, what, sides, partial(_truncate, matrix))

        return Choices(self.name, params, macs, work, loss, plan)

    def refit(self, module: Any, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice, Tensor]]:
        """Group by group: the best Tucker-2 layer, its core in the metric of what it reads, and then the output side anew."""
        fours = []
        (height, width), (q, s, r) = module.kernel_size, module.ranks
        kernel = height * width
        for rows, best, metric in fit.solutions():
            G = gradients and gradients.of(rows, best)
            _, K, P, _ = fit_sides(best, metric, G, kernel, q, r, rounds=rounds(fit))
            Cp = inner_metric(P, metric, kernel)
            _, B, A, _ = fit_sides(K.flatten(1), Cp, None, width, s, None, rounds=rounds(fit))  # G^1/2 U has orthonormal columns
            F = (A.T @ B).flatten(1)  # (r, q k)
            FP = (P.T @ F.unflatten(1, (q, kernel))).flatten(1)
            U = regressed(best @ (FP @ metric).T, quadratic(F, Cp))
            fours.append((U, B, A.unflatten(1, (q, height)), P))
            yield rows, U @ FP
        module.set_fours(fours)


def _truncate(matrix: LayerMatrix, layer: Any) -> None:
    """Give a layer the truncated higher-order SVD, its core cut to spatial rank."""
    layer.set_matrix(matrix.weight)
