"""Plain layers of torch in the place of a compressed one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from lrp.errors import InputError
from lrp.layer.compressed import Compressed
from lrp.layer.dense_view import DenseView


class Chain(nn.Sequential):
    """Plain layers one after the other in the place of a compressed one, at which code may look as at that one: its sizes, the shape, dtype
    and device of its weight, its bias."""

    __jit_unused_properties__ = ("weight", "bias")

    def __init__(self, layers: Sequence[nn.Module], like: Compressed) -> None:
        super().__init__(*layers)
        for name in like.attributes:
            setattr(self, name, getattr(like, name))
        self.weight_shape = tuple(like.weight.shape)

    @property
    def weight(self) -> Tensor:
        """The dense weight; its values are known of Linear layers alone."""
        return DenseView(self._values, self.weight_shape, next(self.parameters()))

    @property
    def bias(self) -> Tensor | None:
        """That of the last layer."""
        return getattr(self[len(self) - 1], "bias", None)

    def _values(self) -> Tensor:
        layers = list(self)
        if not all(isinstance(layer, nn.Linear) for layer in layers):
            raise InputError(
                "weight", type(self).__name__, "several convolutions have no one weight to read; read those of the layers in it"
            )
        weights: list[Any] = [layer.weight for layer in reversed(layers)]
        return functools.reduce(torch.matmul, weights)

    def __repr__(self) -> str:
        return nn.Sequential.__repr__(self).replace(f"{type(self).__name__}(", "Sequential(", 1)


class TransposedChain(Chain):
    """The same of a transposed convolution, which can be asked for an output of some size."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The output of all layers, of this size if one is asked for."""
        return self[1](self[0](input, output_size))


def chained(layers: Sequence[nn.Module], like: Compressed) -> nn.Module:
    """Plain layers as one module in the place of a compressed one; a single one as it is."""
    if len(layers) == 1:
        return layers[0]
    return (TransposedChain if isinstance(layers[0], _ConvTransposeNd) else Chain)(layers, like)
