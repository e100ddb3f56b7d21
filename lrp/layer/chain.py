"""Plain layers of torch in the place of a compressed one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
        return nn.Sequential.__repr__(self).replace("Chain(", "Sequential(", 1)
