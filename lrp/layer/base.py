"""What low-rank layers of every kind share: real factors in place of a weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.errors import InputError, check_rank
from lrp.layer.compressed import Compressed, Keeps, parameter_maker
from lrp.layer.stored import Part, RowRange, read_blocks, row_range, span
from lrp.matrices import Block, Factors, LayerMatrix, Rank, kept_rank

GROW = ("orthogonal", "svd")


class LowRank(Keeps):
    """What low-rank convolutions and linear layers share: the blocks of one layer matrix (M x N) and how they add up.

    Stored are, for a block of p x q that keeps r components, ``V`` (r, q) and r columns of ``U``, balanced (U sqrt(S), sqrt(S) Vh of
    a plain SVD), which the blocks of one row range share as one (p, sum of their r); for a block that is stored whole its weight (p, q);
    and the bias. Nothing is stored for a block that keeps no component. The parameters are made without values, ``fill`` sets
    them.

    Attributes:
        blocks: each block and its rank
        ranges: what is stored, row range by row range
        alike: no number, of the layer's dtype and on its device, where no block keeps a component; else None
    """

    form = "matrix"
    file_format = 1
    own = (*Compressed.own, "blocks", "ranges", "U", "V", "W", "alike", "tied_factors", "_tied_weights_keys")
    turned = "transposed"  # the form of a layer that holds the same factors and whose matrix is the transpose
    alike: Tensor | None
    tied_factors = False  # whether other layers hold its factors too
    _tied_weights_keys: dict[str, str] | None = None

    def _hold(self, held: Sequence[tuple[Block, Rank]], like: Tensor) -> None:
        """Make the parameters of these blocks at these ranks, without values, of the dtype and on the device of ``like``."""
        self.blocks = sorted(held, key=lambda pair: (pair[0].row_start, pair[0].col_start))
        by_rows: dict[tuple[int, int], list[tuple[Block, Rank]]] = defaultdict(list)
        for block, rank in self.blocks:
            by_rows[block.row_start, block.row_stop].append((block, rank))
        self.ranges = [row_range(g, pairs) for g, pairs in enumerate(by_rows.values())]
        empty = parameter_maker(like)
        factored = [part for rows in self.ranges for part in rows.factored]
        # lists of pairs: a dictionary's keys torch would sort
        self.U = nn.ParameterDict([(rows.key, empty(rows.stop - rows.start, rows.rank)) for rows in self.ranges if rows.factored])
        self.V = nn.ParameterDict([(part.key, empty(part.rank, part.block.shape[1])) for part in factored])
        self.W = nn.ParameterDict([(part.key, empty(*part.block.shape)) for rows in self.ranges for part in rows.whole])
        self.register_buffer("alike", None if self.U or self.W else like.detach().new_empty(0), persistent=False)

    @staticmethod
    def holding(factors: Sequence[Factors], keep: Sequence[Tensor]) -> list[tuple[Block, Rank]]:
        """Each block and its rank."""
        return [(factor.block, kept_rank(mask)) for factor, mask in zip(factors, keep)]

    @torch.no_grad()
    def fill(self, dense: Any, factors: Sequence[Factors], keep: Sequence[Tensor]) -> None:
        """Set the factors from the kept components and the whole blocks from the dense layer's weight."""
        of = {(f.block.row_start, f.block.col_start): (f, mask) for f, mask in zip(factors, keep)}

        def balanced(block: Block) -> tuple[Tensor, Tensor]:
            factor, mask = of[block.row_start, block.col_start]
            return balance(factor.U[:, mask], factor.V[mask])

        self._set(self.arranged(self.matrix_of(dense)), balanced)

    def _set(self, weight: Tensor, pair: Callable[[Block], tuple[Tensor, Tensor]]) -> None:
        """Set each factored block's parameters to ``pair(block)``, (p, r) and (r, q), and the whole ones' from ``weight``."""
        for rows in self.ranges:
            for part in rows.whole:
                self.W[part.key].copy_(part.block.of(weight))
            for part, columns in self._of_U(rows):
                U, V = pair(part.block)
                columns.copy_(U)
                self.V[part.key].copy_(V)

    def columns_back(self, matrix: Tensor) -> Tensor:
        """A matrix (r, N) whose columns are as the blocks count them, as the layer reads them."""
        return matrix

    def rows_of(self, rows: RowRange) -> slice | Tensor:
        """The outputs of the layer that a row range gives."""
        return slice(rows.start, rows.stop)

    def _of_U(self, rows: RowRange) -> list[tuple[Part, Tensor]]:
        """Each factored block of a row range with its own columns of U (p, r)."""
        if not rows.factored:
            return []
        return list(zip(rows.factored, self.U[rows.key].split([len(self.V[part.key]) for part in rows.factored], dim=1)))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Glorot's uniform initialisation (Glorot and Bengio, 2010) of every factor and whole block, as matrices; the bias is
        left as it is."""
        for parameter in [*self.U.values(), *self.V.values(), *self.W.values()]:
            nn.init.xavier_uniform_(parameter, generator=generator)

    @torch.no_grad()
    def set_rank(self, rank: int, grow: str = "orthogonal", generator: torch.Generator | None = None) -> None:
        """Hold every block at ``rank`` from now on, -1: as one dense matrix; also between two steps of training.

        The factors become U sqrt(S) and sqrt(S) Vh of the truncated SVD of the current block. Where the rank grows beyond
        what the block has, ``grow`` says what comes with it: ``orthogonal``, columns of U that are zero and rows of V that are
        random, orthonormal and orthogonal to the others (drawn by ``generator``), which leave the function as it is and
        learn at once; or ``svd``, the same SVD's further components, zero but for rounding, which hardly learn. The
        parameters are new: the optimiser has to be made anew.

        Raises:
            InputError: For a rank that a block cannot have, for an unknown ``grow``, for weights that are not finite, and for a layer
                whose factors are those of other layers too.
        """
        self.check_free(rank)
        target = check_rank("rank", rank, min(block.rank for block, _ in self.blocks))
        if grow not in GROW:
            raise InputError("grow", grow, f"choose {' or '.join(GROW)}")
        weight = self.arranged(self.weight_matrix())
        if not bool(torch.isfinite(weight).all()):
            raise InputError("rank", rank, "the layer's weight holds values that are not finite, so that it cannot be decomposed")
        like = next(iter([*self.U.values(), *self.W.values()]), None)
        if like is None:  # no component is left: as the bias is
            like = weight if self.bias is None else self.bias
            like = like.detach().requires_grad_(self.bias is None or self.bias.requires_grad)
        pairs = {}
        if target is not None:
            for block, held in self.blocks:
                most = target if grow == "svd" else block.rank if held is None else held
                pairs[block] = _at_rank(block.of(weight), target, most, grow == "svd", generator)
        self._hold([(block, target) for block, _ in self.blocks], like)
        self._set(weight, pairs.__getitem__)

    def share(self, other: LowRank, dense: Any) -> None:
        """Hold the very factors and whole blocks of another layer, which stores the same blocks at the same ranks (tied weights), and the
        very bias of the layer in whose place this one is: what it is tied to stays tied.

        Raises:
            ValueError: Where it does not.
        """
        pairs = list(zip((self.U, self.V, self.W), (other.U, other.V, other.W)))
        shapes = [[{key: value.shape for key, value in held.items()} for held in pair] for pair in pairs]
        if any(own != theirs for own, theirs in shapes):
            raise ValueError("two layers that share their factors store different blocks")
        for own, theirs in pairs:
            own.update(theirs)
        if self.bias is not None:
            self.bias = dense.bias
        for layer in (self, other):  # transformers reads from this table of any module which names of a state are one tensor
            layer.tied_factors, layer._tied_weights_keys = True, {name: name for name, _ in layer.named_parameters() if name != "bias"}

    def check_free(self, rank: Any) -> None:
        """That the layer's rank can be set.

        Raises:
            InputError: For a layer whose factors are those of other layers too.
        """
        if self.tied_factors:
            raise InputError("rank", rank, "other layers hold the factors of this one too (a tied weight), and so its rank stays")

    def stored(self) -> dict[str, Any]:
        """Each block's span and rank, -1 of one that is whole."""
        return {"blocks": [[*span(block), -1 if rank is None else rank] for block, rank in self.blocks]}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> list[tuple[Block, Rank]]:
        """The blocks and their ranks."""
        return read_blocks(matrix, stored["blocks"])

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """Two thin layers, or one where the block is stored whole; none of a layer of several blocks and of an empty one."""
        if reason := self._stays():
            return reason
        if self.blocks[0][1] is None:
            return [self._thin(self.W["0_0"], self.bias)]
        return [self._thin(self.V["0_0"], None), self._pointwise(self.U["0"], self.bias)]

    def _stays(self) -> str | None:
        """Why there are no plain layers that compute the same; None where there are."""
        if len(self.blocks) != 1:
            return "it has several blocks"
        return "nothing of it is left but the bias" if self.blocks[0][1] == 0 else None

    def _thin(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """A plain layer with this matrix (R, N) and bias (R,) that reads what this one reads."""
        raise NotImplementedError

    def _pointwise(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """A plain layer with this matrix (M, R) and bias (M,) that reads R components at each position."""
        raise NotImplementedError

    def arranged(self, matrix: Tensor) -> Tensor:
        """A matrix (M, N) in the order of rows and columns in which the blocks lie: as it is."""
        return matrix

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N) that the stored blocks amount to."""
        example = self._example()
        matrix = torch.zeros(self.rows, self.columns, dtype=example.dtype, device=example.device)
        for rows in self.ranges:
            for part, columns in self._of_U(rows):
                part.block.of(matrix).copy_(columns @ self.V[part.key])
            for part in rows.whole:
                part.block.of(matrix).copy_(self.W[part.key])
        return matrix

    def as_pair(self) -> tuple[Tensor, Tensor] | None:
        """As of ``Compressed``: of a layer of one block that keeps components."""
        alone = len(self.blocks) == 1 and self.blocks[0][1]
        return (getattr(self.U, "0"), getattr(self.V, "0_0")) if alone else None  # quicker than by key

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self._scale(scale)
        self._set_bias(scale, shift)

    def _scale(self, scale: Tensor) -> None:
        for rows in self.ranges:
            factor = [self.U[rows.key]] if rows.factored else []
            for tensor in [*factor, *(self.W[part.key] for part in rows.whole)]:
                tensor.mul_(scale[rows.start : rows.stop, None].to(tensor))

    @torch.no_grad()
    def reorder_rows(self, order: Tensor) -> bool:
        """As of ``Compressed``; not where rows are cut."""
        if len(self.ranges) != 1:
            return False
        held = [*self.U.values(), *self.W.values(), *([] if self.bias is None else [self.bias])]
        for values in held:
            values.copy_(values[order])
        return True

    def _apply_rows(self, x: Tensor, dim: int) -> Tensor:
        """All row ranges, one after the other along the output dimension ``dim``; the bias is part of each."""
        outputs = []
        for rows in self.ranges:
            bias = self._bias_of(rows)
            out = None
            if rows.factored:
                out = self._outer(self._inner(x, rows, dim), self.U[rows.key], bias)
            for part in rows.whole:
                more = self._columns(x, self.W[part.key], rows.start, *part.columns, bias if out is None else None)
                out = more if out is None else out + more
            outputs.append(self._nothing(x, rows.stop - rows.start, bias) if out is None else out)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim)

    def _bias_of(self, rows: RowRange) -> Tensor | None:
        """The part of the bias that is added with a row range."""
        return None if self.bias is None else self.bias[rows.start : rows.stop]

    def _inner(self, x: Tensor, rows: RowRange, dim: int) -> Tensor:
        """The values of the components of a row range: V applied block by block."""
        inner = [self._columns(x, self.V[part.key], rows.start, *part.columns) for part in rows.factored]
        return inner[0] if len(inner) == 1 else torch.cat(inner, dim)

    def _columns(self, x: Tensor, weight: Tensor, row: int, start: int, stop: int, bias: Tensor | None = None) -> Tensor:
        """``weight`` (r, stop - start) applied to the part of the input that these columns of row ``row`` multiply."""
        raise NotImplementedError

    def _outer(self, inner: Tensor, U: Tensor, bias: Tensor | None) -> Tensor:
        """U applied to the values of the components."""
        raise NotImplementedError

    def _nothing(self, x: Tensor, rows: int, bias: Tensor | None) -> Tensor:
        """The output of rows that have lost all their components: the bias."""
        raise NotImplementedError

    def __repr__(self) -> str:
        ranks = [len(V) for V in self.V.values()]
        return f"{type(self).__name__}({self.columns}, {self.rows}, ranks={ranks}, whole={len(self.W)}, bias={self.bias is not None})"


def _at_rank(matrix: Tensor, rank: int, most: int, exactly: bool, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """U sqrt(S) (p, rank) and sqrt(S) Vh (rank, q) of the SVD of a block, of ``most`` components: ``exactly`` this many, or those of
    them that are more than rounding. Zero columns of U and random rows of V, orthonormal and orthogonal to the others, fill up the rank."""
    U, S, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    noise = S[0] * (1e-12 if matrix.dtype == torch.float64 else 1e-6)  # a component that is rounding alone would not learn
    had = most if exactly else min(rank, most, int((S > noise).sum()))
    root, rows = S[:had].sqrt(), [Vh[:had]]
    if had < rank:
        new = torch.randn(rank - had, matrix.shape[1], dtype=torch.float64, generator=generator).to(Vh)
        for _ in range(2):  # once more, against rounding
            new = torch.linalg.qr((new - new @ Vh[:had].T @ Vh[:had]).T).Q.T
        rows.append(new)
    U = F.pad(U[:, :had] * root, (0, rank - had))
    return U, torch.cat([rows[0] * root[:, None], *rows[1:]])


def balance(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """The same product U V with columns of U (p, r) and rows of V (r, q) of one length, component by component; of a plain SVD
    U sqrt(S), sqrt(S) Vh. A component that is zero stays so."""
    left, right = torch.linalg.vector_norm(U, dim=0), torch.linalg.vector_norm(V, dim=1)
    root = torch.where((left > 0) & (right > 0), (right / left.where(left > 0, 1.0)).sqrt(), 1.0)
    return U * root, V / root[:, None]
