"""Convolutions in Tucker-2 form: channels in, a small kernel, channels out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from lrp.decomposition.metric import OutputMetric
from lrp.form.alternating import fit_sides, rounds
from lrp.form.base import Choices, ScoredLayer, Side, lost_after, rank_grid
from lrp.form.factored import FactoredPlan, Kept
from lrp.form.unfolding import shares
from lrp.layer.build import kind_of
from lrp.layer.tucker2 import project
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix


class Tucker2Form:
    """W = U K P: 1 x 1 to q channels, the kernel from q to r channels, 1 x 1 to all (Kim et al., ICLR 2016), each group alike.

    What a pair (q, r) loses is taken to be the sum of what each side loses: of the output side the perturbations of the components of
    the layer matrix's SVD, of the input side those of the SVD of the input unfolding.
    """

    name: ClassVar[str] = "tucker2"
    perturbations: ClassVar[bool] = True

    def fits(self, dense: nn.Module, matrix: LayerMatrix) -> bool:
        """A convolution with a kernel of more than one entry and more than one input channel."""
        return kind_of(dense).form(dense, self.name) is not None and matrix.kernel > 1 and matrix.channels > 1

    def inputs(self, dense: nn.Module, matrix: LayerMatrix) -> set[int]:
        """All of the kernel: an input is a channel."""
        return {matrix.kernel}

    def sizes(self, matrix: LayerMatrix, q: Any, r: Any) -> tuple[Any, Any, Any]:
        """Numbers stored before the kernel, in it and behind it, at q input and r output ranks of each group."""
        return matrix.groups * q * matrix.channels, matrix.groups * r * q * matrix.kernel, matrix.shape[0] * r

    def choices(self, layer: ScoredLayer) -> Choices:
        """Every pair of ranks of a grid that is smaller than the dense layer."""
        matrix = layer.matrix
        inputs = layer.inputs[matrix.kernel]
        out, into = lost_after(layer.outputs), lost_after(inputs)
        r, q = np.meshgrid(rank_grid(len(out) - 1, layer.step), rank_grid(len(into) - 1, layer.step), indexing="ij")
        smaller = sum(self.sizes(matrix, q, r)) < matrix.weight.numel()
        q, r = q[smaller], r[smaller]
        sizes = self.sizes(matrix, q, r)
        params = sizes[0] + sizes[1] + sizes[2]
        parts = sizes[0] * layer.places, sizes[1] * layer.positions, sizes[2] * layer.positions
        macs = parts[0] + parts[1] + parts[2]
        work = np.stack([*parts, matrix.groups * (q * layer.places + r * layer.positions)], 1)

        def plan(i: int) -> FactoredPlan:
            ranks = int(q[i]), int(r[i])
            return self.plan(matrix, int(params[i]), int(macs[i]), ranks, partial(_project, matrix, layer.outputs, inputs, ranks))

        return Choices(self.name, params, macs, work, layer.loss(shares(out[r] + into[q], layer.total)), plan)

    def plan(self, matrix: LayerMatrix, params: int, macs: int, ranks: tuple[int, int], fill: Callable[[Any], None]) -> FactoredPlan:
        """A layer with these ranks (q, r), which ``fill`` gives its values."""
        (M, N), (q, r), groups, rows = matrix.shape, ranks, matrix.groups, matrix.shape[0] // matrix.groups
        sides = Kept((M, N), r, min(rows, N)), Kept((groups * matrix.channels, rows * matrix.kernel), q, matrix.channels)
        return FactoredPlan(self.name, matrix, params, macs, ranks, f"{self.name}, {q} in and {r} out", sides, fill)

    def refit(self, module: Any, fit: Regression, gradients: OutputMetric | None) -> Iterator[tuple[slice, Tensor]]:
        """Group by group."""
        triples = []
        kernel = module.K[0, 0].numel()
        for rows, best, metric in fit.solutions():
            G = gradients and gradients.of(rows, best)
            U, K, P, _ = fit_sides(best, metric, G, kernel, *module.ranks, rounds=rounds(fit))
            triples.append((U, K, P))
            yield rows, U @ (P.T @ K).flatten(1)
        module.set_triples(triples)


def _project(matrix: LayerMatrix, outputs: Sequence[Side], inputs: Sequence[Side], ranks: tuple[int, int], layer: Any) -> None:
    """Give a layer the components of both sides whose perturbations are the largest, and the best core between them."""
    parts = zip(matrix.weight.double().chunk(matrix.groups), outputs, inputs, strict=True)
    layer.set_triples([project(part, matrix.kernel, out.kept(ranks[1]), into.kept(ranks[0]).T) for part, out, into in parts])
