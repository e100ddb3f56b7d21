"""Layer matrices, their blocks and the factors of a block: the words that every other part is written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerMatrix:
    """A layer's weight as a matrix.

    ``weight`` is (M, N): a Linear's weight, or a Conv2d's folded to C_out x (C_in*kh*kw), channel-major columns
    (section 3.1 of the paper). ``kernel`` counts the columns an input channel has: kh*kw, 1 for a Linear.
    """

    name: str
    weight: Tensor
    kernel: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def channels(self) -> int:
        """Input channels (of a Linear: input features)."""
        return self.weight.shape[1] // self.kernel


@dataclass(frozen=True)
class Block:
    """The rectangle rows [row_start, row_stop) x columns [col_start, col_stop) of one layer matrix."""

    layer: str
    index: int
    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    @property
    def rank(self) -> int:
        """R = min(p, q), the number of components."""
        return min(self.shape)

    @property
    def size(self) -> int:
        """p q, the parameters of the block stored whole."""
        return self.shape[0] * self.shape[1]

    def cost(self, rank: int) -> int:
        """Parameters stored at a rank: rank (p + q), or p q where that would not be less."""
        return min(rank * sum(self.shape), self.size)

    def is_dense(self, rank: int) -> bool:
        """Whether the block at this rank is stored whole, as its factors would not be smaller."""
        return rank * sum(self.shape) >= self.size

    def of(self, matrix: Tensor) -> Tensor:
        return matrix[self.row_start : self.row_stop, self.col_start : self.col_stop]


@dataclass(frozen=True)
class Factors:
    """The thin decomposition of a block: U (M, R), S (R,) descending, Vh (R, N); U diag(S) Vh is the block."""

    block: Block
    U: Tensor
    S: Tensor
    Vh: Tensor


def layer_matrices(model: nn.Module) -> dict[str, LayerMatrix]:
    """The matrices of all layers that lrp compresses, by their name in ``named_modules``, in that order.

    These are Linear and ungrouped Conv2d layers; every other layer is left as it is.
    """
    found = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear:
            found[name] = LayerMatrix(name, module.weight.detach(), 1)
        elif type(module) is nn.Conv2d and module.groups == 1:
            found[name] = LayerMatrix(name, module.weight.detach().flatten(1), module.kernel_size[0] * module.kernel_size[1])
    return found


def check_partition(matrices: Mapping[str, LayerMatrix], blocks: Iterable[Block]) -> None:
    """Every entry of every matrix lies in exactly one block, and blocks are numbered from 0 in each layer.

    Raises ValueError, with the layer's name, where a blocking broke that.
    """
    covered = {name: torch.zeros(matrix.shape, dtype=torch.int32) for name, matrix in matrices.items()}
    count = dict.fromkeys(matrices, 0)
    for block in blocks:
        if block.index != count[block.layer] or block.size <= 0:
            raise ValueError(f"layer {block.layer}: block {block.index} is empty or out of order")
        count[block.layer] += 1
        block.of(covered[block.layer]).add_(1)
    for name, cover in covered.items():
        if not bool((cover == 1).all()):
            raise ValueError(f"layer {name}: the blocks do not partition its matrix exactly")


def spans(total: int, parts: int) -> list[tuple[int, int]]:
    """[0, total) in ``parts`` contiguous ranges whose sizes differ by at most one, larger ones first."""
    size, larger = divmod(total, parts)
    edges = [i * size + min(i, larger) for i in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:]))
