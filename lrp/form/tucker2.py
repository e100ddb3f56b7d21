"""Convolutions in Tucker-2 form: channels in, a small kernel, channels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lrp.form.alternating import fit_sides
from lrp.form.base import Choices, ScoredLayer, lost_after, rank_grid
from lrp.form.unfolding import input_components, largest, shares
from lrp.layer.build import kind_of
from lrp.layer.tucker2 import project
from lrp.layer_statistics.regression import Regression
from lrp.matrices import LayerMatrix


@dataclass(frozen=True)
class Tucker2Plan:
    """A convolution with q input and r output ranks in each group.

    Attributes:
        form: The name of the form.
        matrix: The layer's matrix (M, N).
        params: Parameters stored for the layer's weight.
        macs: Multiply-accumulates for one example, as the layer runs.
        ranks: (q, r).
        sides: Of each group the perturbations of the output side's components and those of the input side's, (R,) each.
    """

    form: str
    matrix: LayerMatrix
    params: int
    macs: int
    ranks: tuple[int, int]
    sides: Sequence[tuple[Tensor, Tensor]]

    @property
    def untouched(self) -> bool:
        """Never: the dense layer has another form."""
        return False

    def build(self, dense: nn.Module) -> nn.Module:
        """The layer with the components of both sides whose perturbations are the largest, and the best core between them."""
        layer, (q, r) = self.layer(dense), self.ranks
        triples = []
        for part, (out, into) in zip(self.matrix.weight.double().chunk(self.matrix.groups), self.sides, strict=True):
            U = torch.linalg.svd(part, full_matrices=False).U[:, largest(out, r)]
            P = input_components(part, self.matrix.kernel)[0].T[largest(into, q)]
            triples.append(project(part, self.matrix.kernel, U, P))
        layer.set_triples(triples)
        return layer.train(dense.training)

    def layer(self, dense: nn.Module) -> Any:
        """The layer of this form and these ranks, without values."""
        made: Any = kind_of(dense).form(dense, self.form)
        return made(dense, self.ranks)

    def rows(self) -> list[dict[str, Any]]:
        """One row for the output side and one for the input side."""
        (M, N), (q, r) = self.matrix.shape, self.ranks
        groups, rows = self.matrix.groups, self.matrix.shape[0] // self.matrix.groups
        sides = ((f"{M}x{N}", r, min(rows, N)), (f"{groups * self.matrix.channels}x{rows * self.matrix.kernel}", q, self.matrix.channels))
        return [
            {"layer": self.matrix.name, "block": i, "shape": shape, "kept": kept, "full": full, "dense": False, "form": self.form}
            for i, (shape, kept, full) in enumerate(sides)
        ]

    def summary(self) -> dict[str, Any]:
        """The report's row of the layer."""
        return {
            "shape": "x".join(str(n) for n in self.matrix.shape),
            "what": f"{self.form}, {self.ranks[0]} in and {self.ranks[1]} out",
            "blocks": 1,
            "rank": self.ranks[1],
            "full_rank": min(self.matrix.shape[0] // self.matrix.groups, self.matrix.shape[1]),
            "params_after": self.params,
            "macs_after": self.macs,
        }


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
        macs = sizes[0] * layer.places + (sizes[1] + sizes[2]) * layer.positions
        sides = list(zip(layer.outputs, inputs))

        def plan(i: int) -> Tucker2Plan:
            return Tucker2Plan(self.name, matrix, int(params[i]), int(macs[i]), (int(q[i]), int(r[i])), sides)

        return Choices(self.name, params, macs, layer.loss(shares(out[r] + into[q], layer.total)), plan)

    def refit(self, module: Any, fit: Regression, gradients: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Group by group."""
        triples = []
        kernel = module.K[0, 0].numel()
        for group in range(module.groups):
            rows = fit.rows_of(group)
            best, metric = fit.solution(group)
            G = None if gradients is None else gradients[rows, rows].to(fit.C)
            U, K, P, _ = fit_sides(best, metric, G, kernel, *module.ranks)
            triples.append((U, K, P))
            yield rows, U @ (P.T @ K).flatten(1)
        module.set_triples(triples)
