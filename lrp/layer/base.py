"""What low-rank layers of every kind share: real factors in place of a weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.errors import InputError, check_rank
from lrp.matrices import Block, Factors

GROW = ("orthogonal", "svd")


class LowRank(nn.Module):
    """What low-rank convolutions and linear layers share: the blocks of one layer matrix (M x N) and how they add up.

    Stored are, for a block of p x q that keeps r components, ``V`` (r, q) and r columns of ``U``, balanced (U sqrt(S), sqrt(S) Vh of a plain SVD),
    which the blocks of one row range share as one (p, sum of their r); for a block that is stored whole its weight (p, q);
    and the bias. Nothing is stored for a block that keeps no component. ``blocks`` gives each block's rank, None for one
    that is stored whole; the parameters are made without values, ``fill`` sets them.
    """

    attributes: ClassVar[tuple[str, ...]]  # of the dense layer, which code around it may read

    def __init__(self, dense: nn.Module, blocks: Sequence[tuple[Block, int | None]]) -> None:
        super().__init__()
        for name in self.attributes:
            setattr(self, name, getattr(dense, name))
        self.rows, self.columns = dense.weight.shape[0], dense.weight[0].numel()
        self._hold(blocks, dense.weight)
        self.bias = None
        if dense.bias is not None:
            self.bias = nn.Parameter(dense.bias.detach().clone(), requires_grad=dense.bias.requires_grad)
        if getattr(dense, "added_bias", False):  # by an earlier round: files have to know
            self.added_bias = True

    def _hold(self, blocks: Sequence[tuple[Block, int | None]], like: Tensor) -> None:
        """Make the parameters of these blocks at these ranks, without values, of the dtype and on the device of ``like``."""
        self.blocks = [(block, rank) for block, rank in sorted(blocks, key=lambda b: (b[0].row_start, b[0].col_start))]
        self.ranges: list[tuple[int, int]] = []
        self.factored: list[list[tuple[int, int]]] = []  # of each row range, the column ranges of its factored blocks
        self.whole: list[list[tuple[int, int]]] = []
        self.U, self.V, self.W = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(like.new_empty(shape), requires_grad=like.requires_grad)

        by_rows: dict[tuple[int, int], list[tuple[Block, int | None]]] = defaultdict(list)
        for block, rank in self.blocks:
            by_rows[block.row_start, block.row_stop].append((block, rank))
        for g, (span, parts) in enumerate(by_rows.items()):
            factored, whole, total = [], [], 0
            for block, rank in parts:
                columns = (block.col_start, block.col_stop)
                if rank is None:
                    self.W[f"{g}_{len(whole)}"] = empty(*block.shape)
                    whole.append(columns)
                elif rank:
                    self.V[f"{g}_{len(factored)}"] = empty(rank, block.shape[1])
                    factored.append(columns)
                    total += rank
            if total:
                self.U[str(g)] = empty(span[1] - span[0], total)
            self.ranges.append(span)
            self.factored.append(factored)
            self.whole.append(whole)

    @torch.no_grad()
    def fill(self, dense: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> None:
        """Set the factors from the kept components and the whole blocks from the dense layer's weight."""
        weight = dense.weight.detach().flatten(1)
        of = {(f.block.row_start, f.block.col_start): (f, mask) for f, mask in zip(factors, keep)}

        def balanced(block: Block, rank: int) -> tuple[Tensor, Tensor]:
            factor, mask = of[block.row_start, block.col_start]
            return balance(factor.U[:, mask], factor.V[mask])

        self._set(weight, balanced)

    def _set(self, weight: Tensor, pair: Callable[[Block, int], tuple[Tensor, Tensor]]) -> None:
        """Set each factored block's parameters to ``pair(block, rank)``, (p, r) and (r, q), and the whole ones' from ``weight``."""
        at, count = defaultdict(int), defaultdict(lambda: [0, 0])  # of each row range: the next column of U; blocks seen
        for block, rank in self.blocks:
            g = self.ranges.index((block.row_start, block.row_stop))
            if rank is None:
                self.W[f"{g}_{count[g][0]}"].copy_(block.of(weight))
                count[g][0] += 1
            elif rank:
                U, V = pair(block, rank)
                self.U[str(g)][:, at[g] : at[g] + rank].copy_(U)
                self.V[f"{g}_{count[g][1]}"].copy_(V)
                at[g] += rank
                count[g][1] += 1

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
        parameters are new: the optimiser has to be made anew. Raises InputError for a rank that a block cannot have.
        """
        check_rank("rank", rank, min(block.rank for block, _ in self.blocks))
        if grow not in GROW:
            raise InputError("grow", grow, f"{' or '.join(GROW)} is needed")
        weight = self.weight_matrix()
        if not bool(torch.isfinite(weight).all()):
            raise InputError("rank", rank, "the layer's weight holds values that are not finite, so that it cannot be decomposed")
        like = next(iter([*self.U.values(), *self.W.values()]), None)
        if like is None:  # no component is left: as the bias is
            like = weight if self.bias is None else self.bias
            like = like.detach().requires_grad_(self.bias is None or self.bias.requires_grad)
        before = {block: block.rank if held is None else held for block, held in self.blocks}

        def pair(block: Block) -> tuple[Tensor, Tensor]:
            U, S, Vh = torch.linalg.svd(block.of(weight).double(), full_matrices=False)
            noise = S[0] * (1e-12 if weight.dtype == torch.float64 else 1e-6)  # a component that is rounding alone would not learn
            had = rank if grow == "svd" else min(rank, before[block], int((S > noise).sum()))
            root, rows = S[:had].sqrt(), [Vh[:had]]
            if had < rank:
                new = torch.randn(rank - had, block.shape[1], dtype=torch.float64, generator=generator).to(Vh)
                for _ in range(2):  # once more, against rounding
                    new = torch.linalg.qr((new - new @ Vh[:had].T @ Vh[:had]).T).Q.T
                rows.append(new)
            U = F.pad(U[:, :had] * root, (0, rank - had))
            return U, torch.cat([rows[0] * root[:, None], *rows[1:]])

        pairs = {} if rank == -1 else {block: pair(block) for block, _ in self.blocks}
        self._hold([(block, None if rank == -1 else rank) for block, _ in self.blocks], like)
        self._set(weight, lambda block, _: pairs[block])

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N) that the stored blocks amount to."""
        example = next(self.parameters(), torch.empty(0))
        matrix = torch.zeros(self.rows, self.columns, dtype=example.dtype, device=example.device)
        for g, (start, stop) in enumerate(self.ranges):
            at = 0
            for b, (left, right) in enumerate(self.factored[g]):
                V = self.V[f"{g}_{b}"]
                matrix[start:stop, left:right] = self.U[str(g)][:, at : at + len(V)] @ V
                at += len(V)
            for b, (left, right) in enumerate(self.whole[g]):
                matrix[start:stop, left:right] = self.W[f"{g}_{b}"]
        return matrix

    @property
    def weight(self) -> Tensor:
        """The dense weight that the stored blocks amount to, made anew at each call: for code that looks at a layer's weight."""
        return self.weight_matrix()

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """Make the output (..., M, ...) scale * output + shift, both (M,)."""
        for g, (start, stop) in enumerate(self.ranges):
            held = [self.U[str(g)]] if self.factored[g] else []
            for tensor in [*held, *(self.W[f"{g}_{b}"] for b in range(len(self.whole[g])))]:
                tensor.mul_(scale[start:stop, None].to(tensor))
        bias = shift if self.bias is None else self.bias * scale + shift
        example = next(self.parameters(), bias)
        self.bias = nn.Parameter(bias.detach().to(example), requires_grad=example.requires_grad)

    def _apply_rows(self, x: Tensor, dim: int) -> Tensor:
        """All row ranges, one after the other along the output dimension ``dim``; the bias is part of each."""
        parts = []
        for g, (start, stop) in enumerate(self.ranges):
            bias = None if self.bias is None else self.bias[start:stop]
            out = None
            if self.factored[g]:
                out = self._outer(self._inner(x, g, start, dim), self.U[str(g)], bias)
            for b, span in enumerate(self.whole[g]):
                part = self._columns(x, self.W[f"{g}_{b}"], start, *span, bias if out is None else None)
                out = part if out is None else out + part
            parts.append(self._nothing(x, stop - start, bias) if out is None else out)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def _inner(self, x: Tensor, g: int, row: int, dim: int) -> Tensor:
        """The values of the components of row range ``g``, which begins with row ``row``: V applied block by block."""
        inner = [self._columns(x, self.V[f"{g}_{b}"], row, *span) for b, span in enumerate(self.factored[g])]
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


def balance(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """The same product U V with columns of U (p, r) and rows of V (r, q) of one length, component by component; of a plain SVD
    U sqrt(S), sqrt(S) Vh. A component that is zero stays so."""
    left, right = torch.linalg.vector_norm(U, dim=0), torch.linalg.vector_norm(V, dim=1)
    root = torch.where((left > 0) & (right > 0), (right / left.where(left > 0, 1.0)).sqrt(), 1.0)
    return U * root, V / root[:, None]
