"""Convolutions in spatial form: along one side of the kernel, then along the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric
from lrp.form.alternating import fit_sides, rounds
from lrp.form.base import Choices, ScoredLayer, Side, lost_after, rank_grid
from lrp.form.factored import FactoredPlan, Kept
from lrp.form.unfolding import shares
from lrp.layer.build import kind_of
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix


class SpatialForm:
    """A kernel as high as the layer's and one wide to r channels, then one that is one high to all (Jaderberg et al., BMVC 2014)."""

    name: ClassVar[str] = "spatial"
    perturbations: ClassVar[bool] = True

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """A two-dimensional convolution whose kernel is more than one entry high and wide."""
        return kind_of(dense).form(dense, self.name) is not None and min(kernel_size(dense)) > 1

    def inputs(self, dense: nn.Module, matrix: LayerMatrix) -> set[int]:
        """The kernel's width: a channel at one height is an input."""
        return {kernel_size(dense)[1]}

    def size(self, matrix: LayerMatrix, kernel: tuple[int, int], rank: Any) -> Any:
        """Numbers stored at this rank of each group."""
        return rank * (matrix.groups * matrix.channels * kernel[0] + matrix.shape[0] * kernel[1])

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every rank of a grid that is smaller than the dense layer."""
        size, matrix = kernel_size(layer.dense), layer.matrix
        sides = layer.inputs[size[1]]
        rank = rank_grid(min(len(side.scores) for side in sides), layer.step)
        rank = rank[self.size(matrix, size, rank) < matrix.weight.numel()]
        loss = layer.loss(shares(lost_after(sides)[rank], layer.total))
        params, macs = self.size(matrix, size, rank), rank * _unit_macs(matrix, size, layer.positions, between(layer))
        work = np.stack([macs, rank * matrix.groups * between(layer)], 1)
        shape = matrix.shape[0] // matrix.groups * size[1], matrix.channels * size[0]

        def plan(i: int) -> FactoredPlan:
            r, fill = int(rank[i]), partial(_project, matrix, size, sides)
            return FactoredPlan(self.name, matrix, int(params[i]), int(macs[i]), r, self.name, [Kept(shape, r, min(shape))], fill)

        return Choices(self.name, params, macs, work, loss, plan)

    def refit(self, module: Any, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice, Tensor]]:
        """Group by group."""
        pairs = []
        height, width = module.kernel_size
        for rows, best, metric in fit.solutions():
            G = gradients and gradients.of(rows, best)
            _, K, P, _ = fit_sides(best, metric, G, width, module.rank, None, rounds=rounds(fit))
            pairs.append((K, P.unflatten(1, (-1, height))))
            yield rows, (P.T @ K).flatten(1)
        module.set_pairs(pairs)


def kernel_size(dense: Any) -> tuple[int, int]:
    """The height and the width of a layer's kernel."""
    height, width = dense.kernel_size
    return int(height), int(width)


def between(layer: ScoredLayer) -> int:
    """Positions between the two convolutions: as many rows as the output has, as many columns as the input."""
    dense: Any = layer.dense
    width, around = layer.input_shape[-1], sum(dense._reversed_padding_repeated_twice[:2])
    made = (width + around - dense.dilation[1] * (dense.kernel_size[1] - 1) - 1) // dense.stride[1] + 1
    return layer.positions // made * (width if dense.padding_mode == "zeros" else width + around)


def _unit_macs(matrix: LayerMatrix, size: tuple[int, int], positions: int, between: int) -> int:
    """Multiply-accumulates of one rank in every group, for one example."""
    return between * matrix.groups * matrix.channels * size[0] + positions * matrix.shape[0] * size[1]


def _project(matrix: LayerMatrix, size: tuple[int, int], sides: Sequence[Side], layer: Any) -> None:
    """Give a layer the components whose perturbations are the largest."""
    pairs = []
    for part, side in zip(matrix.weight.double().chunk(matrix.groups), sides, strict=True):
        P = side.kept(layer.rank).T  # (r, C k_h)
        pairs.append((torch.einsum("rc,mcw->mrw", P, part.unflatten(1, (-1, size[1]))), P.unflatten(1, (-1, size[0]))))
    layer.set_pairs(pairs)
