"""Layer matrices, their blocks and the factors of a block: the words that every other part is written in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lrp.errors import InputError
from lrp.shelf import shelved

# At what rank a block is stored: as factors with this many components, or None: whole, as the matrix that it is. Files and users
# write -1 for whole (``lrp.errors.check_rank``, ``lrp.deploy.saving``); nothing else does.
Rank = int | None


@dataclass(frozen=True)
class Use:
    """A further layer that holds the weight of a layer matrix (a tied weight).

    Attributes:
        name: Of the layer, as in ``named_modules``.
        positions: At how many positions of an example it gives an output; 0: it does not run.
        places: At how many of them it multiplies; 0 of a lookup.
        transposed: Whether its own matrix is the transpose (an output layer that reads the table of an embedding).
    """

    name: str
    positions: int = 0
    places: int = 0
    transposed: bool = False


@dataclass(frozen=True)
class LayerMatrix:
    """A layer's weight as a matrix.

    Attributes:
        name: Of the layer, as in ``named_modules``.
        weight: (M, N), a Linear's weight, or a convolution's folded to C_out x (C_in*kh*kw), channel-major columns (section 3.1 of
            the paper).
        kernel: Columns per input channel: kh*kw, 1 for a Linear.
        groups: Of a grouped convolution: the g-th M / groups rows read the g-th group of input channels, and N counts those of one
            group.
        lookup: Whether the layer looks columns up by index (an embedding), which multiplies nothing.
        places: At how many positions of an example the columns are multiplied, once that is known, where the output has another number.
        uses: The other layers that hold the same weight: what becomes of the matrix becomes of all of them.
    """

    name: str
    weight: Tensor
    kernel: int
    groups: int = 1
    lookup: bool = False
    places: int | None = None
    uses: tuple[Use, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)."""
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def channels(self) -> int:
        """Input channels that a row reads (of a Linear: input features)."""
        return self.weight.shape[1] // self.kernel

    def macs(self, positions: int) -> int:
        """Multiply-accumulates of the dense layer, which gives an output at so many positions, and of all that hold the same weight."""
        places = positions if self.places is None else self.places
        return (places + sum(use.places for use in self.uses)) * self.weight.numel()


@dataclass(frozen=True)
class Block:
    """A rectangle of one layer matrix.

    Attributes:
        layer: The name of the layer.
        index: The number of the block in its layer, from 0.
        row_start: The first row.
        row_stop: The row behind the last.
        col_start: The first column.
        col_stop: The column behind the last.
    """

    layer: str
    index: int
    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """(p, q)."""
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
        """This part (p, q) of the layer's ``matrix`` (M, N), as a view."""
        return matrix[self.row_start : self.row_stop, self.col_start : self.col_stop]


@shelved("U", "V")
@dataclass(frozen=True)
class Factors:
    """The thin decomposition of a block (p x q) into R = min(p, q) components, U V = block.

    U and V may lie in a file, from which they are read at each access: those of all layers are several times as large as the network.

    Attributes:
        block: What was decomposed.
        U: (p, R).
        S: (R,) descending, the norm of each component in the metric of the ``decomposition``.
        V: (R, q), not normalised, so that nothing is divided by an S near zero: of the plain SVD the rows of V are S Vh.
        layer_norm: The largest S that the whole layer has as one block.
        decomposition: The name of the decomposition.
    """

    block: Block
    U: Tensor
    S: Tensor
    V: Tensor
    layer_norm: float = 0.0
    decomposition: str = "svd"


def seen_by(factors: Factors, use: Use) -> Factors:
    """The factors of a block as another layer has them that holds the same weight."""
    block = factors.block
    if not use.transposed:
        return replace(factors, block=replace(block, layer=use.name))
    turned = Block(use.name, block.index, block.col_start, block.col_stop, block.row_start, block.row_stop)
    return replace(factors, block=turned, U=factors.V.T, V=factors.U.T)


def kept_rank(mask: Tensor) -> Rank:
    """The rank at which a block is stored of whose components those of ``mask`` (R,) stay: all of them stay where it is whole."""
    return None if bool(mask.all()) else int(mask.sum())


def cut(blocking: Callable[[Mapping[str, LayerMatrix]], list[Block]], matrices: Mapping[str, LayerMatrix]) -> list[Block]:
    """The blocks into which ``blocking`` cuts the matrices, checked to partition them exactly.

    The groups of a grouped convolution are cut one by one, as matrices of their own: no block crosses from one to the next.
    """
    views, place = {}, {}
    for name, matrix in matrices.items():
        rows = matrix.shape[0] // matrix.groups
        for g in range(matrix.groups):
            view = f"{name}, group {g}" if matrix.groups > 1 else name
            views[view] = LayerMatrix(view, matrix.weight[g * rows : (g + 1) * rows], matrix.kernel)
            place[view] = (name, g * rows)
    blocks, count = [], dict.fromkeys(matrices, 0)
    for block in blocking(views):
        name, shift = place[block.layer]
        rows = (block.row_start + shift, block.row_stop + shift)
        blocks.append(replace(block, layer=name, index=count[name], row_start=rows[0], row_stop=rows[1]))
        count[name] += 1
    check_partition(matrices, blocks)
    return blocks


def check_partition(matrices: Mapping[str, LayerMatrix], blocks: Iterable[Block]) -> None:
    """Check that every entry of every matrix lies in exactly one block, and that blocks are numbered from 0 in each layer.

    Raises:
        ValueError: With the layer's name, where a blocking broke that.
    """
    found: dict[str, list[Block]] = {name: [] for name in matrices}
    for block in blocks:
        if block.index != len(found[block.layer]) or block.size <= 0:
            raise ValueError(f"layer {block.layer}: block {block.index} is empty or out of order")
        found[block.layer].append(block)
    for name, held in found.items():
        free = torch.ones(matrices[name].shape, dtype=torch.bool)  # one layer's at a time
        twice = False
        for block in held:
            part = block.of(free)
            twice |= not bool(part.all()) or part.shape != block.shape
            part.fill_(False)
        if twice or bool(free.any()):
            raise ValueError(f"layer {name}: the blocks do not partition its matrix exactly")


def spans(total: int, parts: int) -> list[tuple[int, int]]:
    """[0, total) in ``parts`` contiguous ranges whose sizes differ by at most one, larger ones first."""
    size, larger = divmod(total, parts)
    edges = [i * size + min(i, larger) for i in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:]))


def check_weights(matrices: Mapping[str, LayerMatrix]) -> None:
    """Check that every weight is finite.

    Raises:
        InputError: With the layer's name, for one that is not.
    """
    for name, matrix in matrices.items():
        if not bool(torch.isfinite(matrix.weight).all()):
            raise InputError(f"layer {name}: its weight holds values that are not finite, so it cannot be decomposed")
