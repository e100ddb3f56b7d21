"""Layers that compute only some of their outputs: the filters that were kept, and of others the centre of their kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.compressed import Compressed, filled, parameter_maker
from lrp.layer.compressed_conv import CompressedConv
from lrp.matrices import LayerMatrix

Held = tuple[Sequence[int], Sequence[int]]


class Filters(Compressed):
    """A layer matrix (M, N) of which some rows are there, ``W`` (K, N), some have the entries at the centre of the kernel alone, ``P``
    (m, C), and the others are zero, so that these outputs are the bias: K N + m C numbers, and as many multiplications at each position.

    The rows with a centre alone are HAP's neural implant (Yu et al., WACV 2022, section 3.3): a 1 x 1 convolution of the same stride.

    Attributes:
        whole: The outputs that rows of ``W`` give.
        centred: Those that rows of ``P`` give.
    """

    form = "filters"
    file_format = 5
    own = (*Compressed.own, "whole", "centred", "W", "P", "order")
    whole: list[int]
    centred: list[int]
    order: Tensor
    W: Tensor
    P: Tensor

    def _hold(self, held: Held, like: Tensor) -> None:
        self.whole, self.centred = [int(i) for i in held[0]], [int(i) for i in held[1]]
        empty = parameter_maker(like)
        for name, count, columns in (("W", len(self.whole), self.columns), ("P", len(self.centred), self.columns // self._kernel())):
            if count:
                setattr(self, name, empty(count, columns))
            else:  # no parameter: one that no forward reads has no gradient, for which DDP waits
                self.register_buffer(name, like.new_empty(0, columns), persistent=False)
        self.register_buffer("order", torch.tensor(self._order(), dtype=torch.int64, device=like.device), persistent=False)

    def _kernel(self) -> int:
        """Entries of the kernel."""
        return math.prod(getattr(self, "kernel_size", ()))

    def _order(self) -> list[int]:
        """Of each output its place among those that are computed, or behind them where it is a zero."""
        places = {row: at for at, row in enumerate([*self.whole, *self.centred])}
        return [places.get(row, len(places)) for row in range(self.rows)]

    def stored(self) -> dict[str, Any]:
        """Which outputs are computed, and how."""
        return {"whole": list(self.whole), "centred": list(self.centred)}

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> Held:
        """Which outputs are computed, and how.

        Raises:
            ValueError: Where the layer has no such outputs.
        """
        whole, centred = stored["whole"], stored["centred"]
        if not all(isinstance(rows, list) and all(type(row) is int for row in rows) for rows in (whole, centred)):
            raise ValueError(f"layer {matrix.name}: its filters are not lists of integers")
        rows = [*whole, *centred]
        if len({*rows}) < len(rows) or not all(0 <= row < matrix.shape[0] for row in rows) or not rows:
            raise ValueError(f"layer {matrix.name}: its filters are none of its {matrix.shape[0]}")
        if matrix.groups > 1 or centred and matrix.kernel == 1:
            raise ValueError(f"layer {matrix.name}: its filters cannot be stored so")
        return whole, centred

    @torch.no_grad()
    def set_rows(self, whole: Tensor, centred: Tensor) -> None:
        """Store these, (K, N) and (m, C)."""
        self.W.copy_(whole)
        self.P.copy_(centred)

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N)."""
        kernel = self._kernel()
        centre = F.pad(self.P[..., None], (kernel // 2, kernel - 1 - kernel // 2)).flatten(1)
        rows = torch.cat([self.W, centre, self.W.new_zeros(1, self.columns)])
        return rows.index_select(0, self.order)

    @torch.no_grad()
    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """As of ``Compressed``."""
        self.W.mul_(scale[self.whole, None].to(self.W))
        self.P.mul_(scale[self.centred, None].to(self.P))
        self._set_bias(scale, shift)

    @torch.no_grad()
    def plain_layers(self) -> list[nn.Module] | str:
        """One dense layer, which holds the zeros as well."""
        return [self._plain(self.weight_matrix())]

    def _plain(self, weight: Tensor) -> nn.Module:
        raise NotImplementedError

    def _in_order(self, parts: list[Tensor], dim: int) -> Tensor:
        """The outputs from what is computed of them: zeros where nothing is."""
        if len(self.whole) + len(self.centred) < self.rows:
            parts = [*parts, torch.zeros_like(parts[0].narrow(dim, 0, 1))]
        return torch.cat(parts, dim).index_select(dim, self.order)

    def __repr__(self) -> str:
        numbers = f"whole={len(self.whole)}, centred={len(self.centred)}"
        return f"{type(self).__name__}({self.columns}, {self.rows}, {numbers}, bias={self.bias is not None})"


class FiltersLinear(Filters):
    """A Linear (input (..., N), output (..., M)) of which some rows are zero."""

    dense = nn.Linear
    attributes = ("in_features", "out_features")

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        y = self._in_order([F.linear(input, self.W)], -1)
        return y if self.bias is None else y + self.bias

    def _plain(self, weight):
        return filled(nn.Linear(self.columns, self.rows, bias=self.bias is not None), weight, self.bias)


class _FiltersConv(CompressedConv, Filters):
    """A convolution some of whose filters are 1 x 1 or zero."""

    own = (*Filters.own, *CompressedConv.own)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M, ...)."""
        around, dim = [self.stride, 0, 1], -1 - self.dims
        parts = []
        if self.whole:
            x, padding = self._padded(input)
            parts.append(self.convolve(x, self.W.view(len(self.W), -1, *self.kernel_size), None, self.stride, padding, self.dilation))
        if self.centred:
            parts.append(self.convolve(input, self.P.view(*self.P.shape, *self._ones()), None, *around))
        y = self._in_order(parts, dim)
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.dims)

    def _plain(self, weight):
        sizes: Any = (self.in_channels, self.rows, self.kernel_size, self.stride, self.padding, self.dilation)
        return filled(self.dense(*sizes, bias=self.bias is not None, padding_mode=self.padding_mode), weight, self.bias)


class FiltersConv1d(_FiltersConv):
    """A Conv1d (input (B, C_in, L), output (B, M, L')) some of whose filters are 1 x 1 or zero."""

    dense = nn.Conv1d
    convolve = staticmethod(F.conv1d)


class FiltersConv2d(_FiltersConv):
    """A Conv2d (input (B, C_in, H, W), output (B, M, H', W')) some of whose filters are 1 x 1 or zero."""

    dense = nn.Conv2d
    convolve = staticmethod(F.conv2d)


def has_centre(dense: Any) -> bool:
    """Whether the filters of a layer have a centre which at each output lies on one entry of the input: a convolution with a kernel of
    odd sides and as much padding around as that takes."""
    sizes = getattr(dense, "kernel_size", ())
    if math.prod(sizes) == 1 or getattr(dense, "groups", 1) > 1 or not hasattr(dense, "_reversed_padding_repeated_twice"):
        return False
    around = dense._reversed_padding_repeated_twice  # the last dimension first, before and behind
    wanted = [dilation * (size - 1) // 2 for size, dilation in zip(sizes, dense.dilation) for _ in range(2)][::-1]
    return all(size % 2 for size in sizes) and list(around) == wanted
