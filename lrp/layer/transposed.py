"""A linear layer that shares the factors of a low-rank embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import LowRank
from lrp.layer.clusters import Clustered
from lrp.layer.compressed import filled


class LowRankTransposed(LowRank):
    """A Linear (input (..., M), output (..., N)) whose weight is the transpose of a matrix (M, N) that is stored in blocks: an output layer
    that reads the table of an embedding. ``rows``, ``columns`` and the blocks are those of the embedding's layer matrix."""

    form = "transposed"
    file_format = 4
    dense = nn.Linear
    attributes = ("in_features", "out_features")

    @staticmethod
    def matrix_of(dense: Any) -> Tensor:
        """The embedding's layer matrix (M, N)."""
        return dense.weight.detach().T

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., N)."""
        parts = [part for rows in self.ranges for part in rows.parts]
        if len(parts) == 1 and parts[0].block.shape == (self.rows, self.columns):
            (rows,) = self.ranges
            if rows.whole:
                return F.linear(input, self.W[parts[0].key].T, self.bias)
            return F.linear(F.linear(input, self.U[rows.key].T), self.V[parts[0].key].T, self.bias)
        out = torch.zeros(*input.shape[:-1], self.columns, dtype=input.dtype, device=input.device)
        for rows in self.ranges:
            x = input[..., rows.start : rows.stop]
            for part, U in self._of_U(rows):
                out = out + F.pad(F.linear(F.linear(x, U.T), self.V[part.key].T), self._around(part.columns))
            for part in rows.whole:
                out = out + F.pad(F.linear(x, self.W[part.key].T), self._around(part.columns))
        return out if self.bias is None else out + self.bias

    def _around(self, columns: tuple[int, int]) -> tuple[int, int]:
        return columns[0], self.columns - columns[1]

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """As of ``LowRank``."""
        if reason := self._stays():
            return reason
        if self.blocks[0][1] is None:
            return [_plain(self.W["0_0"].T, self.bias)]
        return [_plain(self.U["0"].T, None), _plain(self.V["0_0"].T, self.bias)]

    def _scale(self, scale: Tensor) -> None:
        assert not self.tied_factors  # the output runs over the columns of the matrix
        for rows in self.ranges:
            for part in rows.parts:
                held = self.W[part.key] if part.rank is None else self.V[part.key]
                held.mul_(scale[slice(*part.columns)].to(held))

    def _weight_shape(self) -> tuple[int, ...]:
        return self.columns, self.rows

    def _dense_weight(self) -> Tensor:
        return self.weight_matrix().T


class ClusteredTransposed(Clustered, LowRankTransposed):
    """The same of an embedding in clusters: a Linear (input (..., M), output (..., N)) whose outputs are computed cluster by cluster."""

    form = "clusters_transposed"
    ordered_output = True

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., N)."""
        (rows,) = self.ranges
        factors = {part.columns[0]: (U, self.V[part.key]) for part, U in self._of_U(rows)}
        whole = {part.columns[0]: self.W[part.key] for part in rows.whole}
        outputs = []
        for block, _ in self.blocks:
            if block.col_start in factors:
                U, V = factors[block.col_start]
                outputs.append(F.linear(F.linear(input, U.T), V.T))
            elif block.col_start in whole:
                outputs.append(F.linear(input, whole[block.col_start].T))
            else:
                outputs.append(input.new_zeros(*input.shape[:-1], block.shape[1]))
        return self._in_order(outputs)


def _plain(weight: Tensor, bias: Tensor | None) -> nn.Module:
    return filled(nn.Linear(weight.shape[1], len(weight), bias=bias is not None), weight.contiguous(), bias)
