"""Layer matrices, their blocks and the factors of a block: the words that every other part is written in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lrp.order import Order
from lrp.shelf import Shelf, changed, handle_of, shelved, transposed

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
        reorders: Whether blocks may be cut from it in another order of its rows and input channels.
        kernel_size: The sizes whose product ``kernel`` is; () for a Linear.
    """

    name: str
    weight: Tensor
    kernel: int
    groups: int = 1
    lookup: bool = False
    places: int | None = None
    uses: tuple[Use, ...] = ()
    reorders: bool = False
    kernel_size: tuple[int, ...] = ()

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
    """A rectangle of one layer matrix, or of one whose rows and columns are in another order.

    Attributes:
        layer: The name of the layer.
        index: The number of the block in its layer, from 0.
        row_start: The first row.
        row_stop: The row behind the last.
        col_start: The first column.
        col_stop: The column behind the last.
        order: The order in which these rows and columns are counted, one for all blocks of a layer; None: as they are.
    """

    layer: str
    index: int
    row_start: int
    row_stop: int
    col_start: int
    col_stop: int
    order: Order | None = field(default=None, repr=False, kw_only=True)  # keys of caches are made of what is shown

    @property
    def shape(self) -> tuple[int, int]:
        """(p, q)."""
        return self.row_stop - self.row_start, self.col_stop - self.col_start

    @property
    def rank(self) -> int:
        """R = min(p, q), the number of components."""
        return min(self.shape)

    @property
    def unit(self) -> int:
        """p + q, the parameters of one component."""
        return sum(self.shape)

    @property
    def size(self) -> int:
        """p q, the parameters of the block stored whole."""
        return self.shape[0] * self.shape[1]

    def cost(self, rank: int) -> int:
        """Parameters stored at a rank: rank (p + q), or p q where that would not be less."""
        return min(rank * self.unit, self.size)

    def is_dense(self, rank: int) -> bool:
        """Whether the block at this rank is stored whole, as its factors would not be smaller."""
        return rank * self.unit >= self.size

    @property
    def rows(self) -> slice | Tensor:
        """Its rows in the layer's matrix."""
        span = slice(self.row_start, self.row_stop)
        return span if self.order is None or self.order.row_index is None else self.order.row_index[span]

    @property
    def columns(self) -> slice | Tensor:
        """Its columns in the layer's matrix."""
        span = slice(self.col_start, self.col_stop)
        return span if self.order is None or self.order.column_index is None else self.order.column_index[span]

    def of(self, matrix: Tensor) -> Tensor:
        """This part (p, q) of the layer's ``matrix`` (M, N), as a view; a copy where the order is another one."""
        return matrix[self.rows][:, self.columns]

    def put(self, matrix: Tensor, values: Tensor) -> None:
        """Write ``values`` (p, q) into this part of the layer's ``matrix`` (M, N)."""
        rows, columns = (torch.arange(size)[part] for size, part in zip(matrix.shape, (self.rows, self.columns)))
        matrix[rows[:, None], columns] = values.to(matrix)


class Components:
    """A block W (p x q) as a sum of R components c_i (p x q), in any basis: what is scored and removed.

    Attributes:
        block: What was decomposed; it knows R and what a component costs.
        S: (R,) float64, the norm of each component in the metric of the ``decomposition``.
        layer_norm: The largest S that the whole layer has as one block.
        decomposition: The name of the decomposition.
        form: In what form a layer is stored that keeps some of its components: "matrix" (U V), or "masked" (zeros among its weights).
        rank_one: Whether each component is u_i v_i, with all u_i and v_i at hand as ``U`` and ``V``.
    """

    form: ClassVar[str]
    rank_one: ClassVar[bool]
    block: Block
    S: Tensor
    layer_norm: float
    decomposition: str

    @property
    def count(self) -> int:
        """R."""
        return self.block.rank

    @property
    def layer_form(self) -> str:
        """The form of the layer, which may be another where its blocks lie in another order."""
        return self.form

    @property
    def order(self) -> Tensor:
        """The components (R,) from the largest S to the smallest, of equal ones the first first."""
        return self.S.argsort(descending=True, stable=True)

    @property
    def values(self) -> tuple[Tensor, ...]:
        """Tensors that tell these components apart from those of another decomposition of the same block."""
        raise NotImplementedError

    def laid_on(self, shelf: Shelf) -> Components:
        """The same, with what is large in a file."""
        return self

    def pair(self, which: slice) -> tuple[Tensor, Tensor]:
        """U (p, n) and V (n, q) of some components, each c_i = u_i v_i."""
        raise NotImplementedError

    def dot(self, G: Tensor) -> Tensor:
        """The inner products (R,) of each component with a matrix (p, q): <c_i, G>."""
        raise NotImplementedError

    def energy(self) -> Tensor:
        """The squared Frobenius norms (R,) of the components, whatever the metric of the decomposition."""
        raise NotImplementedError

    def combine(self, z: Tensor) -> Tensor:
        """sum_i z_i c_i / ||c_i|| (p, q), the norms Frobenius ones; a component that is zero adds nothing."""
        raise NotImplementedError

    def mean(self, D: Tensor) -> Tensor:
        """The means (R,) of a matrix (p, q) over the entries that each component touches."""
        raise NotImplementedError


@shelved("U", "V")
@dataclass(frozen=True)
class Factors(Components):
    """The thin decomposition of a block (p x q) into R = min(p, q) components u_i v_i, U V = block.

    U and V may lie in a file, from which they are read at each access: those of all layers are several times as large as the network.

    Attributes: as of ``Components``, and
        U: (p, R).
        S: (R,) descending, the norm of each component in the metric of the ``decomposition``.
        V: (R, q), not normalised, so that nothing is divided by an S near zero: of the plain SVD the rows of V are S Vh.
    """

    form = "matrix"
    rank_one = True
    block: Block
    U: Tensor
    S: Tensor
    V: Tensor
    layer_norm: float = 0.0
    decomposition: str = "svd"

    @property
    def layer_form(self) -> str:
        """As of ``Components``."""
        return self.form if self.block.order is None else "permuted"

    @property
    def order(self) -> Tensor:
        """As they are."""
        return torch.arange(self.count)

    @property
    def values(self) -> tuple[Tensor, ...]:  # noqa: D102
        return self.U, self.V

    def laid_on(self, shelf: Shelf) -> Factors:  # noqa: D102
        return replace(self, U=shelf.put(self.U), V=shelf.put(self.V))

    def pair(self, which: slice) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.U[:, which], self.V[which]

    def dot(self, G: Tensor) -> Tensor:  # noqa: D102
        return ((self.U.T @ G) * self.V).sum(1)

    def energy(self) -> Tensor:  # noqa: D102
        return self.U.square().sum(0) * self.V.square().sum(1)

    def combine(self, z: Tensor) -> Tensor:  # noqa: D102
        return (self.U * over(z, self.energy().sqrt())) @ self.V

    def mean(self, D: Tensor) -> Tensor:
        """All entries: a triplet touches every one."""
        return D.mean().expand(self.count)


def over(z: Tensor, norm: Tensor) -> Tensor:
    """z / norm, 0 where the norm is 0."""
    return torch.where(norm > 0, z / norm.clamp(min=torch.finfo(norm.dtype).tiny), torch.zeros_like(norm))


def seen_by(factors: Any, use: Use) -> Any:
    """The components of a block as another layer has them that holds the same weight."""
    block = factors.block
    if not use.transposed:
        return changed(factors, block=replace(block, layer=use.name))
    turned = Block(use.name, block.index, block.col_start, block.col_stop, block.row_start, block.row_stop)
    return changed(factors, block=turned, U=transposed(handle_of(factors, "V")), V=transposed(handle_of(factors, "U")))


def kept_rank(mask: Tensor) -> Rank:
    """The rank at which a block is stored of whose components those of ``mask`` (R,) stay: all of them stay where it is whole."""
    return None if bool(mask.all()) else int(mask.sum())
