"""Low-rank layers: real factors in place of a weight, run as thin convolutions or products."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.matrices import Block, Factors


class _LowRank(nn.Module):
    """What low-rank convolutions and linear layers share: the blocks of one layer matrix (M x N) and how they add up.

    Stored are, for a block of p x q that keeps r components, ``V`` = sqrt(S) Vh (r, q) and r columns of ``U`` = U sqrt(S),
    which the blocks of one row range share as one (p, sum of their r); for a block that is not smaller as factors its
    weight (p, q); and the bias. Nothing is stored for a block that keeps no component.
    """

    def __init__(self, dense: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> None:
        super().__init__()
        weight = dense.weight.detach().flatten(1)
        self.rows, self.columns = weight.shape
        self.ranges: list[tuple[int, int]] = []
        self.factored: list[list[tuple[int, int]]] = []  # of each row range, the column ranges of its factored blocks
        self.whole: list[list[tuple[int, int]]] = []
        self.U, self.V, self.W = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        by_rows: dict[tuple[int, int], list[tuple[Factors, Tensor]]] = defaultdict(list)
        for factor, mask in zip(factors, keep):
            by_rows[factor.block.row_start, factor.block.row_stop].append((factor, mask))
        for g, (span, parts) in enumerate(sorted(by_rows.items())):
            self.ranges.append(span)
            factored, whole, left = [], [], []
            for factor, mask in sorted(parts, key=lambda part: part[0].block.col_start):
                block, rank = factor.block, int(mask.sum())
                columns = (block.col_start, block.col_stop)
                if rank and block.is_dense(rank):
                    self.W[f"{g}_{len(whole)}"] = nn.Parameter(block.of(weight).clone())
                    whole.append(columns)
                elif rank:
                    root = factor.S[mask].sqrt()
                    self.V[f"{g}_{len(factored)}"] = nn.Parameter((root[:, None] * factor.Vh[mask]).to(weight))
                    left.append((factor.U[:, mask] * root).to(weight))
                    factored.append(columns)
            if left:
                self.U[str(g)] = nn.Parameter(torch.cat(left, dim=1))
            self.factored.append(factored)
            self.whole.append(whole)
        self.bias = None if dense.bias is None else nn.Parameter(dense.bias.detach().clone())

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N) that the stored blocks amount to."""
        example = next(iter([*self.U.values(), *self.W.values()]), torch.empty(0))
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

    def _apply_rows(self, x: Tensor, dim: int) -> Tensor:
        """All row ranges, one after the other along the output dimension ``dim``; the bias is part of each."""
        parts = []
        for g, (start, stop) in enumerate(self.ranges):
            bias = None if self.bias is None else self.bias[start:stop]
            out = None
            if self.factored[g]:
                inner = [self._columns(x, self.V[f"{g}_{b}"], *span) for b, span in enumerate(self.factored[g])]
                out = self._outer(inner[0] if len(inner) == 1 else torch.cat(inner, dim), self.U[str(g)], bias)
            for b, span in enumerate(self.whole[g]):
                part = self._columns(x, self.W[f"{g}_{b}"], *span, bias if out is None else None)
                out = part if out is None else out + part
            parts.append(self._nothing(x, stop - start, bias) if out is None else out)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def _columns(self, x: Tensor, weight: Tensor, start: int, stop: int, bias: Tensor | None = None) -> Tensor:
        """``weight`` (r, stop - start) applied to the part of the input that these columns of the matrix multiply."""
        raise NotImplementedError

    def _outer(self, inner: Tensor, U: Tensor, bias: Tensor | None) -> Tensor:
        """U applied to the values of the components."""
        raise NotImplementedError

    def _nothing(self, x: Tensor, rows: int, bias: Tensor | None) -> Tensor:
        """The output of rows that have lost all their components: the bias."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        ranks = [len(V) for V in self.V.values()]
        return f"{self.columns}, {self.rows}, ranks={ranks}, whole={len(self.W)}, bias={self.bias is not None}"


class LowRankLinear(_LowRank):
    """A Linear (input (..., N), output (..., M)) from the kept components of its blocks."""

    def forward(self, x: Tensor) -> Tensor:
        return self._apply_rows(x, -1)

    def _columns(self, x, weight, start, stop, bias=None):
        return F.linear(x[..., start:stop], weight, bias)

    def _outer(self, inner, U, bias):
        return F.linear(inner, U, bias)

    def _nothing(self, x, rows, bias):
        out = x.new_zeros(*x.shape[:-1], rows)
        return out if bias is None else out + bias


class LowRankConv2d(_LowRank):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) from the kept components of its blocks.

    A block runs as a convolution on the input channels that its columns touch; where it begins or ends inside a channel's
    kernel the missing entries are filled with zeros as it runs. The components then meet in one 1 x 1 convolution.
    """

    def __init__(self, dense: nn.Conv2d, factors: Sequence[Factors], keep: Sequence[Tensor]) -> None:
        super().__init__(dense, factors, keep)
        self.kernel_size, self.stride, self.dilation = dense.kernel_size, dense.stride, dense.dilation
        self.padding, self.padding_mode = dense.padding, dense.padding_mode
        self._around = list(dense._reversed_padding_repeated_twice)  # left, right, top, bottom; "same" resolved

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            x = F.pad(x, self._around, mode=self.padding_mode)
        return self._apply_rows(x, 1)

    def _columns(self, x, weight, start, stop, bias=None):
        channels, filters = column_filters(weight, start, stop, self.kernel_size)
        if filters.shape[1] != x.shape[1]:
            x = x[:, channels]
        padding = self.padding if self.padding_mode == "zeros" else 0
        return F.conv2d(x, filters, bias, self.stride, padding, self.dilation)

    def _outer(self, inner, U, bias):
        return F.conv2d(inner, U[:, :, None, None], bias)

    def _nothing(self, x, rows, bias):
        around = self._around if self.padding_mode == "zeros" else [0, 0, 0, 0]
        size = []
        for d in (0, 1):  # height, width
            length = x.shape[2 + d] + around[2 - 2 * d] + around[3 - 2 * d] - self.dilation[d] * (self.kernel_size[d] - 1) - 1
            size.append(length // self.stride[d] + 1)
        out = x.new_zeros(len(x), rows, *size)
        return out if bias is None else out + bias[:, None, None]


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
    if all(int(mask.sum()) and factor.block.is_dense(int(mask.sum())) for factor, mask in zip(factors, keep)):
        return dense
    kind = LowRankConv2d if isinstance(dense, nn.Conv2d) else LowRankLinear
    return kind(dense, factors, keep).train(dense.training)


def build(model: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> nn.Module:
    """A copy of a network in which every layer holds only its kept components (masks (R,), a block each).

    A block whose factors would not be smaller keeps its original weight; with all blocks whole the copy is the network
    bit for bit. Raises ValueError where such a block lacks a component.
    """
    layers: Mapping[str, list[tuple[Factors, Tensor]]] = defaultdict(list)
    for factor, mask in zip(factors, keep, strict=True):
        rank = int(mask.sum())
        if rank and factor.block.is_dense(rank) and rank < factor.block.rank:
            raise ValueError(f"layer {factor.block.layer}: block {factor.block.index} is stored whole but lacks components")
        layers[factor.block.layer].append((factor, mask))
    result = copy.deepcopy(model)
    for name, parts in layers.items():
        layer = low_rank_layer(result.get_submodule(name), [part[0] for part in parts], [part[1] for part in parts])
        result.set_submodule(name, layer)
    return result


def stored_params(blocks: Sequence[Block], keep: Sequence[Tensor]) -> int:
    """Parameters that the kept components take, biases apart."""
    return sum(block.cost(int(mask.sum())) for block, mask in zip(blocks, keep))
