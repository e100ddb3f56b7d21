"""Layers that stay dense and some of whose weights are zero, and stay zero when they are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import Keeps, filled, parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.matrices import LayerMatrix


class Masked(Keeps):
    """A layer matrix (M, N) stored whole, ``W``, of which only the weights in ``mask`` (M, N) count: the others are zero, whatever is done
    to them. Nothing is smaller or faster; plain layers of torch (``lrp.unfold``, export) hold the zeros."""

    form = "masked"
    file_format = 5
    own = (*Keeps.own, "W", "mask")
    mask: Tensor

    @staticmethod
    def holding(factors: Sequence[Any], keep: Sequence[Tensor]) -> None:
        """Nothing: the mask is a tensor."""
        return None

    def _hold(self, held: None, like: Tensor) -> None:
        self.W = parameter_maker(like)(self.rows, self.columns)
        self.register_buffer("mask", torch.ones(self.rows, self.columns, dtype=torch.bool, device=like.device))

    @torch.no_grad()
    def fill(self, dense: Any, factors: Sequence[Any], keep: Sequence[Tensor]) -> None:
        """The weights of ``dense``, and the mask from the components that stay."""
        for factor, mask in zip(factors, keep, strict=True):
            factor.block.put(self.mask, factor.stays(mask))
        self.set_matrix(self.matrix_of(dense))

    @torch.no_grad()
    def set_matrix(self, matrix: Tensor) -> None:
        """Store what the mask leaves of a matrix (M, N)."""
        self.W.copy_(torch.where(self.mask, matrix, 0))

    def stored(self) -> dict[str, Any]:
        """Nothing beside the tensors."""
        return {}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> None:
        """Nothing."""
        return None

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N), with its zeros."""
        return torch.where(self.mask, self.W, 0)

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self.W.mul_(scale[:, None].to(self.W))
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """One layer, as dense as before."""
        weight = self._dense_weight().requires_grad_(self.W.requires_grad)  # computed here, where no gradient is recorded
        return [filled(self._plain(), weight, self.bias)]

    def _plain(self) -> nn.Module:
        """A plain layer of torch of this shape."""
        raise NotImplementedError

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.columns}, {self.rows}, not zero={int(self.mask.sum())}, bias={self.bias is not None}"


class MaskedLinear(Masked):
    """A Linear (input (..., N), output (..., M)) some of whose weights are zero."""

    dense = nn.Linear
    attributes = ("in_features", "out_features")

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        return F.linear(input, self.weight_matrix(), self.bias)

    def _plain(self) -> nn.Module:
        return nn.Linear(self.columns, self.rows, bias=self.bias is not None)


class _MaskedConv(CompressedConv, Masked):
    own = (*Masked.own, *CompressedConv.own)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        x, padding = self._padded(input)
        return self.convolve(x, self._dense_weight(), self.bias, self.stride, padding, self.dilation, self.groups)

    def _plain(self) -> nn.Module:
        around: Any = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        return self.dense(self.in_channels, self.rows, *around, bias=self.bias is not None, padding_mode=self.padding_mode)


class MaskedConv1d(_MaskedConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) some of whose weights are zero."""

    dense = nn.Conv1d
    convolve: ClassVar[Any] = staticmethod(F.conv1d)


class MaskedConv2d(_MaskedConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) some of whose weights are zero."""

    dense = nn.Conv2d
    convolve: ClassVar[Any] = staticmethod(F.conv2d)
