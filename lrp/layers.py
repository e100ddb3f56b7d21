"""Low-rank layers: real factors in place of a weight, run as thin convolutions or products."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.errors import check_rank, reject
from lrp.matrices import Block, Factors

GROW = ("orthogonal", "svd")
MOST_JOINED = 24  # rank of a row range, all its blocks together, up to which a convolution in blocks runs as one while it trains


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
            raise reject("grow", grow, f"{' or '.join(GROW)} is needed")
        weight = self.weight_matrix()
        if not bool(torch.isfinite(weight).all()):
            raise reject("rank", rank, "the layer's weight holds values that are not finite, so that it cannot be decomposed")
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


class LowRankLinear(LowRank):
    """A Linear (input (..., N), output (..., M)) from the kept components of its blocks."""

    attributes = ("in_features", "out_features")

    def forward(self, input: Tensor) -> Tensor:  # named as torch's layers name it: code may call them so
        return self._apply_rows(input, -1)

    def _columns(self, x, weight, row, start, stop, bias=None):
        return F.linear(x if stop - start == self.columns else x[..., start:stop], weight, bias)

    def _outer(self, inner, U, bias):
        return F.linear(inner, U, bias)

    def _nothing(self, x, rows, bias):
        out = x.new_zeros(*x.shape[:-1], rows)
        return out if bias is None else out + bias


class _LowRankConv(LowRank):
    """A convolution (input (B, C_in, ...) or (C_in, ...)) from the kept components of its blocks.

    A block runs as a convolution on the input channels that its columns touch; where it begins or ends inside a channel's
    kernel the missing entries are filled with zeros as it runs. The components then meet in one 1 x 1 convolution.
    """

    attributes = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    convolve: ClassVar[Any]

    def __init__(self, dense: nn.Conv1d | nn.Conv2d, blocks: Sequence[tuple[Block, int | None]]) -> None:
        super().__init__(dense, blocks)
        self.dims = len(dense.kernel_size)
        self._around = list(dense._reversed_padding_repeated_twice)  # last dimension first, "same" resolved

    @property
    def weight(self) -> Tensor:
        return self.weight_matrix().view(self.rows, -1, *self.kernel_size)

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            input = F.pad(input, self._around, mode=self.padding_mode)
        return self._apply_rows(input, -1 - self.dims)

    def _columns(self, x, weight, row, start, stop, bias=None):
        channels, filters = column_filters(weight, start, stop, self.kernel_size)
        dim, count = -1 - self.dims, filters.shape[1]
        if count != self.in_channels:
            group = row * self.groups // self.rows
            x = x.narrow(dim, group * (self.in_channels // self.groups) + channels.start, count)
        padding = self.padding if self.padding_mode == "zeros" else 0
        return self.convolve(x, filters, bias, self.stride, padding, self.dilation)

    def _inner(self, x, g, row, dim):
        spans = self.factored[g]
        if not self.training or len(spans) < 2 or self.U[str(g)].shape[1] > MOST_JOINED:
            return super()._inner(x, g, row, dim)
        # one convolution with zeros between the blocks: multiplies more, but its gradients read and write x once, not once a block
        count, rows = self.in_channels // self.groups, []
        for b, span in enumerate(spans):
            channels, filters = column_filters(self.V[f"{g}_{b}"], *span, self.kernel_size)
            rows.append(F.pad(filters, (0, 0) * self.dims + (channels.start, count - channels.stop)))
        return self._columns(x, torch.cat(rows).flatten(1), row, 0, self.columns)

    def _outer(self, inner, U, bias):
        return self.convolve(inner, U.view(*U.shape, *[1] * self.dims), bias)

    def _nothing(self, x, rows, bias):
        size = []
        for d in range(self.dims):
            at = 2 * (self.dims - 1 - d)
            around = self._around[at] + self._around[at + 1] if self.padding_mode == "zeros" else 0
            length = x.shape[d - self.dims] + around - self.dilation[d] * (self.kernel_size[d] - 1) - 1
            size.append(length // self.stride[d] + 1)
        out = x.new_zeros(*x.shape[: -1 - self.dims], rows, *size)
        return out if bias is None else out + bias.view(-1, *[1] * self.dims)


class LowRankConv1d(_LowRankConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) from the kept components of its blocks."""

    convolve = staticmethod(F.conv1d)


class LowRankConv2d(_LowRankConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) from the kept components of its blocks."""

    convolve = staticmethod(F.conv2d)


def balance(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """The same product U V with columns of U (p, r) and rows of V (r, q) of one length, component by component; of a plain SVD
    U sqrt(S), sqrt(S) Vh. A component that is zero stays so."""
    left, right = torch.linalg.vector_norm(U, dim=0), torch.linalg.vector_norm(V, dim=1)
    root = torch.where((left > 0) & (right > 0), (right / left.where(left > 0, 1.0)).sqrt(), 1.0)
    return U * root, V / root[:, None]


KINDS: Mapping[type[nn.Module], type[LowRank]] = {nn.Linear: LowRankLinear, nn.Conv1d: LowRankConv1d, nn.Conv2d: LowRankConv2d}


def column_filters(weight: Tensor, start: int, stop: int, kernel_size: tuple[int, ...]) -> tuple[slice, Tensor]:
    """The columns [start, stop) of a convolution's matrix, ``weight`` (r, stop - start), as filters (r, channels, kh, kw) on the
    input channels that they touch. Where they begin or end inside a channel's kernel, zeros fill it."""
    size = math.prod(kernel_size)
    first, last = start // size, -(-stop // size)
    before, after = start - first * size, last * size - stop
    if before or after:
        weight = F.pad(weight, (before, after))
    return slice(first, last), weight.view(len(weight), last - first, *kernel_size)


def low_rank_layer(dense: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> nn.Module:
    """The layer with only the kept components: ``dense`` itself where every block is stored whole."""
    if all(bool(mask.all()) for mask in keep):
        return dense
    blocks = [(factor.block, None if bool(mask.all()) else int(mask.sum())) for factor, mask in zip(factors, keep)]
    layer = KINDS[type(dense)](dense, blocks)
    layer.fill(dense, factors, keep)
    return layer.train(dense.training)


def build(model: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> nn.Module:
    """A copy of a network in which every layer holds only its kept components (masks (R,), a block each).

    A block that keeps all its components is stored whole, with its original weight; with all blocks whole the copy is the
    network bit for bit. Raises ValueError for a block whose factors would not be smaller but which lacks a component.
    """
    layers: Mapping[str, list[tuple[Factors, Tensor]]] = defaultdict(list)
    for factor, mask in zip(factors, keep, strict=True):
        if not bool(mask.all()) and factor.block.is_dense(int(mask.sum())):
            raise ValueError(f"layer {factor.block.layer}: block {factor.block.index} is stored whole but lacks components")
        layers[factor.block.layer].append((factor, mask))
    result = copy.deepcopy(model)
    for name, parts in layers.items():
        layer = low_rank_layer(result.get_submodule(name), [part[0] for part in parts], [part[1] for part in parts])
        result = replace_layer(result, name, layer)
    return result


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put ``layer`` in a network's place ``name``, and wherever else the same module is registered; the network, which is
    ``layer`` itself where it has no name.

    torch's transformer encoders read the weights of their Linear layers themselves when nothing is trained; one that
    holds a low-rank layer has to call it, so that short cut is closed.
    """
    if name == "":
        return layer
    old = model.get_submodule(name)
    for place in [place for place, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(place, layer)
    if not isinstance(layer, LowRank):
        return model
    for path, parent in model.named_modules():
        if path == "" or name.startswith(path + "."):
            if isinstance(parent, nn.TransformerEncoderLayer):
                parent.activation_relu_or_gelu = 0
            if isinstance(parent, nn.TransformerEncoder):
                parent.use_nested_tensor = False
    return model


def stored_params(blocks: Sequence[Block], keep: Sequence[Tensor]) -> int:
    """Parameters that the kept components take, biases apart."""
    return sum(block.cost(int(mask.sum())) for block, mask in zip(blocks, keep))
