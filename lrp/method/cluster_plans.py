"""What methods share that store layers in clusters: points, factors cluster by cluster, ranks within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from lrp.blocking.none import Unblocked
from lrp.cost.count import block_macs
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import factors_in
from lrp.form.clusters import ClusterPlan, clustered_form
from lrp.form.matrix import MatrixPlan
from lrp.matrices import Block, Factors, LayerMatrix
from lrp.method.base import as_masks
from lrp.partition import cut, spans


class ClusterLayer:
    """One layer as points: rows of a Linear, indices of an embedding, input channels of a convolution.

    Attributes:
        matrix: The layer's matrix (M, N).
        by_rows: Whether the points are rows.
        count: How many points there are; 0 where the layer has no form in clusters.
        channels: Whether they are input channels.
    """

    def __init__(self, dense: nn.Module, matrix: LayerMatrix, positions: int, budget: str) -> None:
        form = clustered_form(dense, matrix)
        self.matrix, self.positions, self.budget = matrix, positions, budget
        self.by_rows = form is not None and form.by_rows
        self.channels = form is not None and form.gathers
        M, N = matrix.shape
        self.count = 0 if form is None else M if self.by_rows else N // matrix.kernel

    @property
    def dense_cost(self) -> int:
        """What the dense layer costs, in the unit of the budget."""
        return self.matrix.macs(self.positions) if self.budget == "macs" else self.matrix.weight.numel()

    def points(self) -> Tensor:
        """(n, d, m) float64: m = 1, or the entries of a kernel."""
        W = self.matrix.weight.double().cpu()
        return W[:, :, None] if self.by_rows else W.unflatten(1, (self.count, -1)).transpose(0, 1)

    def blocks(self, sizes: Sequence[int]) -> list[Block]:
        """One block for each cluster of so many points."""
        (M, N), kernel, blocks, start = self.matrix.shape, self.matrix.kernel, [], 0
        for i, size in enumerate(sizes):
            span = (start, start + size)
            place = (*span, 0, N) if self.by_rows else (0, M, *(each * kernel for each in span))
            blocks.append(Block(self.matrix.name, i, *place))
            start += size
        return blocks

    def cost(self, block: Block, rank: int) -> int:
        """What a block costs at a rank, in the unit of the budget; stored whole where its factors would not be smaller."""
        if self.budget == "params":
            return block.cost(rank)
        return block_macs(block, None if block.is_dense(rank) else rank, self.matrix, self.positions)

    def unit(self, blocks: Sequence[Block]) -> int:
        """What rank 1 of all blocks costs as factors."""
        if self.budget == "params":
            return sum(sum(block.shape) for block in blocks)
        return sum(block_macs(block, 1, self.matrix, self.positions) for block in blocks)

    def factors(self, members: Tensor, sizes: Sequence[int], weights: Tensor | None = None) -> list[Factors]:
        """The components of each cluster, in the order of the points ``members`` (n,): of the plain SVD, or of the one that weighs each
        point by ``weights`` (n,), with S in that metric."""
        points, found = self.points()[members], []
        for block, part, own in zip(self.blocks(sizes), points.split(list(sizes)), _split(weights, members, sizes)):
            W = part.transpose(0, 1).flatten(1)  # (d, m n of the cluster)
            if own is None:
                U, S, Vh = torch.linalg.svd(W, full_matrices=False)
                V = S[:, None] * Vh
            else:
                U, S, V = factors_in(W, own)
            found.append(Factors(block, V.T, S, U.T) if self.by_rows else Factors(block, U, S, V))
        return found

    def _svd(self) -> list[Factors]:
        """The components of the whole layer, or of each group."""
        matrices = {self.matrix.name: self.matrix}
        return decompose(matrices, cut(Unblocked(), matrices))

    def whole(self) -> MatrixPlan:
        """The layer as it is."""
        factors = self._svd()
        return MatrixPlan(self.matrix, self.positions, factors, as_masks(factors, [None] * len(factors)))

    def plain(self, allowed: Fraction) -> MatrixPlan:
        """The truncated SVD of the whole layer, or of each group, at the rank that a budget admits."""
        factors = self._svd()
        rank = int(allowed / self.unit([factor.block for factor in factors]))
        ranks = self.spend(factors, [min(rank, most_rank(factor.block)) for factor in factors], allowed)
        return MatrixPlan(self.matrix, self.positions, factors, as_masks(factors, stored(factors, ranks)))

    def plan(self, factors: Sequence[Factors], ranks: Sequence[int], members: Tensor) -> MatrixPlan:
        """The layer in clusters; of one cluster alone as a plain matrix."""
        keep = as_masks(factors, stored(factors, ranks))
        if len(factors) > 1:
            return ClusterPlan(self.matrix, self.positions, factors, keep, members=members)
        assert bool((members.diff() > 0).all()), "one cluster leaves the points as they are"
        return MatrixPlan(self.matrix, self.positions, factors, keep)

    def spend(self, factors: Sequence[Factors], ranks: Sequence[int], allowed: Fraction) -> list[int]:
        """Higher ranks, one by one where most is lost for what one more costs, for what is left of a budget."""
        ranks = list(ranks)
        blocks = [factor.block for factor in factors]
        energies = [factor.S.square() for factor in factors]
        left = allowed - sum(self.cost(block, rank) for block, rank in zip(blocks, ranks))
        while True:
            best, gain = None, 0.0
            for i, (block, rank) in enumerate(zip(blocks, ranks)):
                if block.is_dense(rank):
                    continue
                more = block.rank if block.is_dense(rank + 1) else rank + 1
                cost = self.cost(block, more) - self.cost(block, rank)
                won = float(energies[i][rank:more].sum()) / max(cost, 1)
                if cost <= left and won > gain:
                    best, gain = (i, more, cost), won
            if best is None:
                return ranks
            ranks[best[0]], left = best[1], left - best[2]


def most_rank(block: Block) -> int:
    """The largest rank at which a block is stored as factors."""
    return (block.size - 1) // sum(block.shape)


def stored(factors: Sequence[Factors], ranks: Sequence[int]) -> list[int | None]:
    """The ranks, None of blocks whose factors would not be smaller."""
    return [None if factor.block.is_dense(rank) else rank for factor, rank in zip(factors, ranks, strict=True)]


def equal_sizes(count: int, clusters: int) -> list[int]:
    """So many points in clusters whose sizes differ by at most one."""
    return [stop - start for start, stop in spans(count, clusters)]


def _split(weights: Tensor | None, members: Tensor, sizes: Sequence[int]) -> Sequence[Tensor | None]:
    return [None] * len(sizes) if weights is None else weights[members].split(list(sizes))
