"""The sum of the metrics of several layers that hold one weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lrp.layer_statistics.base import LayerStatistics, quadratic
from lrp.matrices import LayerMatrix
from lrp.shelf import changed


def joined(matrix: LayerMatrix, found: Mapping[str, LayerStatistics]) -> LayerStatistics:
    """The statistics of a layer, of those ``found`` by the layers' names; where others hold its weight, with their metrics' sum."""
    own = found[matrix.name]
    if not matrix.uses:
        return own
    uses = {name: found[name] for name in (matrix.name, *(use.name for use in matrix.uses)) if name in found}
    if any(each.inputs is None for each in uses.values()):  # none were asked for
        return changed(own, uses=uses)
    inputs, gradients = sum_of_metrics(matrix, uses)
    return LayerStatistics(own.rows, inputs[None], gradients, uses=uses)


def sum_of_metrics(
    matrix: LayerMatrix, uses: Mapping[str, LayerStatistics], centred: bool = False, gradients: bool = True
) -> tuple[Tensor, Tensor]:
    """C (N, N), or (N,) where one of the layers is a lookup, and G (M, M): what a change D of the matrix does to the network's outputs
    through all layers that hold it, sum over them of tr(G_u D C_u D^T), taken to be tr(G D C D^T).

    A layer whose matrix is the transpose changes them by tr(G_u D^T C_u D) = tr(C_u D G_u D^T), so its C_u and G_u change places, and of
    its G_u, which has a row and a column for each index, the diagonal is taken. A sum of Kronecker products is none in general: this is the
    nearest in the Frobenius norm (Van Loan and Pitsianis, 1993), whose factors are combinations of the C_u and of the G_u, with weights
    >= 0. Products of the layers' changes with each other are left out. Without gradients each layer counts with its change of its own
    outputs as a share of their second moment. ``centred``: a layer's bias will take the mean of its inputs; ``gradients``: whether they
    count where they are there.
    """
    turned = {use.name: use.transposed for use in matrix.uses}
    W = matrix.weight.to("cpu", torch.float64)
    sides = []
    for name, each in uses.items():
        assert each.inputs is not None
        C, G = each.inputs[0], each.gradients if gradients else None
        plain = G is None
        if centred and each.mean is not None:
            C = C - each.mean[0][:, None] * each.mean[0]
        if turned.get(name, False):
            C, G = torch.ones(len(W.T), dtype=W.dtype) if G is None else G, C
        share = 1.0
        if plain:
            G = torch.eye(len(W), dtype=W.dtype) if G is None else G
            share = 1 / max(float((quadratic(W, C) * G).sum()), torch.finfo(W.dtype).tiny)
        assert G is not None
        sides.append((C * share, G))
    return nearest_product([C for C, _ in sides], [G for _, G in sides])


def nearest_product(Cs: list[Tensor], Gs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """C and G whose Kronecker product is nearest to the sum of those of the ``Cs`` with the ``Gs``, each positive semidefinite."""
    sizes = [torch.linalg.vector_norm(C) * torch.linalg.vector_norm(G) for C, G in zip(Cs, Gs, strict=True)]
    live = [i for i, size in enumerate(sizes) if float(size) > 0]
    if len(live) < 2:
        return (Cs[live[0]], Gs[live[0]]) if live else (Cs[0], Gs[0])
    lengths = [float(torch.linalg.vector_norm(Cs[i])) for i in live]
    Cs, Gs = [Cs[i] / length for i, length in zip(live, lengths)], [Gs[i] * length for i, length in zip(live, lengths)]
    inner_C, inner_G = (torch.stack([torch.stack([(a * b).sum() for b in held]) for a in held]) for held in (Cs, Gs))
    weights = torch.ones(len(Cs), dtype=inner_C.dtype)  # of the best C: the leading eigenvector of a matrix of entries >= 0
    for _ in range(200):
        weights = inner_G @ (inner_C @ weights)
        weights /= weights.sum()
    of_G = inner_C @ weights / (weights @ inner_C @ weights)
    return sum_of(weights, Cs), sum_of(of_G, Gs)


def sum_of(weights: Tensor, values: list[Tensor]) -> Tensor:
    """The values with these weights, added up."""
    total = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        total += weight * value
    return total
