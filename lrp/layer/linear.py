"""Linear layers and their low-rank form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import LowRank
from lrp.layer.clusters import Clustered
from lrp.layer.compressed import filled
from lrp.layer.filters import FiltersLinear
from lrp.layer.kind import LayerKind
from lrp.layer.masked import MaskedLinear
from lrp.layer.permuted import Permuted
from lrp.layer.pivoted import PivotedLinear
from lrp.layer.transposed import ClusteredTransposed, LowRankTransposed
from lrp.matrices import Block


class LowRankLinear(LowRank):
    """A Linear (input (..., N), output (..., M)) from the kept components of its blocks."""

    dense = nn.Linear
    attributes = ("in_features", "out_features")

    def forward(self, input: Tensor) -> Tensor:  # named as torch's layers name it: code may call them so
        """The layer's output (..., M)."""
        return self._apply_rows(input, -1)

    def _columns(self, x, weight, row, start, stop, bias=None):
        return F.linear(x if stop - start == self.columns else x[..., start:stop], weight, bias)

    def _outer(self, inner, U, bias):
        return F.linear(inner, U, bias)

    def _thin(self, weight, bias):
        return filled(nn.Linear(weight.shape[1], len(weight), bias=bias is not None), weight, bias)

    _pointwise = _thin

    def _nothing(self, x, rows, bias):
        out = x.new_zeros(x.shape[:-1] + (rows,))  # torch.fx cannot unpack a shape
        return out if bias is None else out + bias


class PermutedLinear(Permuted, LowRankLinear):
    """A Linear (input (..., N), output (..., M)) whose blocks are cut from its matrix in another order."""


class ClusteredLinear(Clustered, LowRankLinear):
    """A Linear (input (..., N), output (..., M)) whose rows lie in clusters, each of low rank."""

    by_rows = True
    ordered_output = True

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        outputs = []
        for rows in self.ranges:
            if rows.factored:
                outputs.append(F.linear(F.linear(input, self.V[rows.factored[0].key]), self.U[rows.key]))
            elif rows.whole:
                outputs.append(F.linear(input, self.W[rows.whole[0].key]))
            else:
                outputs.append(input.new_zeros(input.shape[:-1] + (rows.stop - rows.start,)))
        return self._in_order(outputs)


class LinearKind(LayerKind):
    """Linear: its matrix is its weight, its positions are all dimensions between the first and the last (tokens)."""

    forms = (
        LowRankLinear, PermutedLinear, PivotedLinear, LowRankTransposed, MaskedLinear, FiltersLinear, ClusteredLinear, ClusteredTransposed,
    )  # fmt: skip
    ties = True
    feature_dim = -1

    def twin(self, dense: Any, layer: LowRank) -> LowRank:
        """As of ``LayerKind``; where ``layer`` is not of this kind, its matrix is the transpose of this one's."""
        form: Any = type(layer) if self.owns(layer) else self.form(dense, layer.turned)
        made: LowRank = form(dense, layer.blocks)
        made.share(layer, dense)
        return made

    def rows(self, module: Any) -> int:  # noqa: D102
        return module.columns if isinstance(module, LowRankTransposed) else super().rows(module)

    def by_example(self, x: Tensor, examples: int, positions: int) -> bool:
        """Any order will do: every row of the input is a position, and a layer reads and gives them in the same order."""
        return x.numel() // x.shape[-1] == examples * positions

    def apart(self, module: Any, value: Tensor) -> Tensor:
        """Each row by itself: (rows, 1, N) or (rows, 1, M)."""
        return value.reshape(-1, 1, value.shape[-1])

    def columns(self, module: Any, x: Tensor, where: Tensor) -> Tensor:  # noqa: D102
        each = torch.arange(len(where), device=x.device)[:, None]
        return x.reshape(len(where), -1, x.shape[-1])[each, where.to(x.device)].reshape(-1, 1, x.shape[-1])

    def inner_filters(self, module: Any, block: Block, V: Tensor) -> tuple[slice | Tensor, Tensor]:  # noqa: D102
        return block.columns, V

    def inner_values(self, module: Any, channels: slice | Tensor, filters: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        return F.linear(x[..., channels], filters)

    def outer_products(self, inner: Tensor, rows: Tensor) -> Tensor:  # noqa: D102
        return torch.einsum("b...r,rm->rb...m", inner, rows)
