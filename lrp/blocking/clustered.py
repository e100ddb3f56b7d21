"""Groups of input channels, or of outputs, that are close to a subspace of few dimensions, in place of contiguous ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrp.blocking.base import Metrics
from lrp.blocking.clusters import Points, in_order
from lrp.errors import InputError, check_float, check_int
from lrp.matrices import Block, LayerMatrix
from lrp.order import Order
from lrp.partition import spans

SIDES = ("inputs", "outputs")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusteredBlocking:
    """``k`` groups of input channels that belong together, where ``alds`` has contiguous ones (future work of the paper: blocks by
    permutation and clustering). Components of the groups and a balanced assignment of channels to groups (the Hungarian method) are found
    in turn, in the metric of the decomposition, from several starts, of which contiguous groups are one: at the rank that is looked at the
    groups are never worse than these. With ``side="outputs"`` groups of outputs that are closely correlated, each with all inputs; of the
    metric of the outputs the diagonal counts then.

    Linear layers and convolutions of one group, whose weight no other layer holds, are reordered; others are cut into contiguous groups.
    The order is stored with the layer, which runs an index_select more, and is no parameter.

    Attributes:
        k: Groups, at least 1; a layer with fewer channels has one group per channel.
        side: What is grouped: ``inputs`` or ``outputs``.
        at_sparsity: The share of a layer's parameters that is removed at the rank for which groups are found, in [0, 1).
        starts: How many starts are tried, at least 1: contiguous groups, two spectral ones, random ones.
    """

    name: ClassVar[str] = "clustered"
    reads_metric: ClassVar[bool] = True
    k: int = 4
    side: str = "inputs"
    at_sparsity: float = 0.8
    starts: int = 4

    def __post_init__(self) -> None:
        check_int("blocking.k", self.k, 1)
        check_int("blocking.starts", self.starts, 1)
        check_float("blocking.at_sparsity", self.at_sparsity, least=0)
        if self.at_sparsity >= 1:
            raise InputError("blocking.at_sparsity", self.at_sparsity, "it must be below 1")
        if self.side not in SIDES:
            raise InputError("blocking.side", self.side, f"choose {' or '.join(SIDES)}")

    def __call__(self, matrices: Mapping[str, LayerMatrix]) -> list[Block]:
        """The blocks of all layers, layer by layer in the order of ``matrices``, by the weights alone."""
        return self.in_metric(matrices, {})

    def in_metric(self, matrices: Mapping[str, LayerMatrix], metrics: Metrics) -> list[Block]:
        """The same in these metrics; of a layer without one by its weights."""
        blocks = []
        for name, matrix in matrices.items():
            C, root = metrics.get(name, (None, None))
            (M, N), by_inputs = matrix.shape, self.side == "inputs"
            total = matrix.channels if by_inputs else M
            groups = spans(total, min(self.k, total))
            order = self._order(matrix, [stop - start for start, stop in groups], C, root)
            for index, (start, stop) in enumerate(groups):
                where = (0, M, start * matrix.kernel, stop * matrix.kernel) if by_inputs else (start, stop, 0, N)
                blocks.append(Block(name, index, *where, order=order))
        return blocks

    def rank(self, matrix: LayerMatrix, groups: int) -> int:
        """Of each block, at the sparsity for which groups are found."""
        M, N = matrix.shape
        each = groups * M + N if self.side == "inputs" else M + groups * N
        return max(1, int((1 - self.at_sparsity) * M * N / each))

    def _order(self, matrix: LayerMatrix, sizes: list[int], C: Tensor | None, root: Tensor | None) -> Order | None:
        if len(sizes) < 2 or not matrix.reorders:
            return None
        points = self.points(matrix, sizes, C, root)
        labels, errors = points.best(self.starts)
        log.debug("%s: errors of the starts, the first contiguous: %s", matrix.name, errors)
        found = in_order(labels)
        if found is None:
            return None
        return Order(found, matrix.kernel) if self.side == "inputs" else Order(None, matrix.kernel, found)

    def points(self, matrix: LayerMatrix, sizes: list[int], C: Tensor | None, root: Tensor | None) -> Points:
        """What is grouped: the input channels of G^1/2 W in the metric C; or the outputs, by their second moments W C W^T weighed with the
        diagonal of G, of which the root is taken."""
        W, rank = matrix.weight.detach().to("cpu", torch.float64), self.rank(matrix, len(sizes))
        if self.side == "inputs":
            return Points(W if root is None else root @ W, C, matrix.kernel, sizes, rank)
        K = W @ W.T if C is None else W * C @ W.T if C.dim() == 1 else W @ C @ W.T
        if root is not None:
            weight = root.square().sum(1).sqrt()
            K = weight[:, None] * K * weight
        values, vectors = torch.linalg.eigh(K)
        return Points((vectors * values.clamp(min=0).sqrt()) @ vectors.T, None, 1, sizes, rank)
