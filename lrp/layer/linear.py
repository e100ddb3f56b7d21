"""Low-rank Linear layers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from lrp.layer.base import LowRank


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
