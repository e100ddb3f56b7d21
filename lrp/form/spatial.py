"""Convolutions in spatial form: along one side of the kernel, then along the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lrp.form.alternating import fit_sides
from lrp.form.base import Choices, ScoredLayer, lost_after, rank_grid
from lrp.form.unfolding import input_components, largest, shares
from lrp.layer.build import kind_of
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix


@dataclass(frozen=True)
class SpatialPlan:
    """A convolution with r channels between its two sides, in each group.

    Attributes:
        matrix: The layer's matrix (M, N).
        kernel_size: (k_h, k_w).
        positions: How often the layer computes its output for one example.
        between: How often the first of the two convolutions computes its own.
        rank: r.
        scores: Of each group the perturbations of the components, (R,).
    """

    matrix: LayerMatrix
    kernel_size: tuple[int, int]
    positions: int
    between: int
    rank: int
    scores: Sequence[Tensor]

    @property
    def untouched(self) -> bool:
        """Never: the dense layer has another form."""
        return False

    @property
    def params(self) -> int:
        """Parameters stored for the layer's weight."""
        return int(self.rank * _unit(self.matrix, self.kernel_size))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example, as the layer runs."""
        return int(self.rank * _unit_macs(self.matrix, self.kernel_size, self.positions, self.between))

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer with the components whose perturbations are the largest."""
        made: Any = kind_of(dense).form(dense, SpatialForm.name)
        layer = made(dense, self.rank)
        width, pairs = self.kernel_size[1], []
        for part, score in zip(self.matrix.weight.double().chunk(self.matrix.groups), self.scores, strict=True):
            at = largest(score, self.rank)
            V, U = input_components(part, width)
            pairs.append((U[at].transpose(0, 1), V.T[at].unflatten(1, (-1, self.kernel_size[0]))))
        layer.set_pairs(pairs)
        return layer.train(dense.training)

    def rows(self) -> list[dict[str, Any]]:
        """One row."""
        shape = _unfolded(self.matrix, self.kernel_size)
        kept = {"kept": self.rank, "full": min(shape), "dense": False, "form": SpatialForm.name}
        return [{"layer": self.matrix.name, "block": 0, "shape": f"{shape[0]}x{shape[1]}", **kept}]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        return {
            "shape": "x".join(str(n) for n in self.matrix.shape),
            "what": "spatial",
            "blocks": 1,
            "rank": self.rank,
            "full_rank": min(_unfolded(self.matrix, self.kernel_size)),
            "params_after": self.params,
            "macs_after": self.macs,
        }


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

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every rank of a grid that is smaller than the dense layer."""
        size, matrix = kernel_size(layer.dense), layer.matrix
        scores = layer.inputs[size[1]]
        rank = rank_grid(min(len(score) for score in scores), layer.step)
        rank = rank[rank * _unit(matrix, size) < matrix.weight.numel()]
        loss = layer.loss(shares(lost_after(scores)[rank], layer.total))
        middle = between(layer)

        def plan(i: int) -> SpatialPlan:
            return SpatialPlan(matrix, size, layer.positions, middle, int(rank[i]), scores)

        return Choices(self.name, rank * _unit(matrix, size), rank * _unit_macs(matrix, size, layer.positions, middle), loss, plan)

    def refit(self, module: Any, fit: Regression, gradients: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Group by group."""
        pairs = []
        height, width = module.kernel_size
        for group in range(module.groups):
            rows = fit.rows_of(group)
            best, metric = fit.solution(group)
            G = None if gradients is None else gradients[rows, rows].to(fit.C)
            _, K, P, _ = fit_sides(best, metric, G, width, module.rank, None)
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


def _unit(matrix: LayerMatrix, size: tuple[int, int]) -> int:
    """Numbers stored for one rank in every group."""
    return matrix.groups * matrix.channels * size[0] + matrix.shape[0] * size[1]


def _unit_macs(matrix: LayerMatrix, size: tuple[int, int], positions: int, between: int) -> int:
    """Multiply-accumulates of one rank in every group, for one example."""
    return between * matrix.groups * matrix.channels * size[0] + positions * matrix.shape[0] * size[1]


def _unfolded(matrix: LayerMatrix, size: tuple[int, int]) -> tuple[int, int]:
    """Outputs at each column of a kernel, and inputs at each of its rows, of a group."""
    return matrix.shape[0] // matrix.groups * size[1], matrix.channels * size[0]
