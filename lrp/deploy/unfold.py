"""Low-rank layers as plain layers of torch, for tools that know no others."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.errors import InputError
from lrp.layer.build import replace_layer
from lrp.layer.compressed import Compressed
from lrp.layer.dense_view import DenseView
from lrp.layer.duplicate import check_module, duplicate

log = logging.getLogger(__name__)


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


def unfold(model: nn.Module) -> nn.Module:
    """A copy of a network in which each compressed layer is one to four plain layers of torch, one after the other: of a matrix and of the
    spatial form two, of Tucker-2 three, of the nested form four. Pivoted layers hold more numbers then.

    It computes the same. Quantisation, TorchScript, adapters and optimiser groups by name then see Linear and convolutions;
    ``lrp.save`` does not write such a network, its ``state_dict`` does. Layers of several blocks, empty ones, spatial and nested ones with
    a padding mode other than zeros, and those with buffers or hooks stay as they are, which the log says.

    Raises:
        InputError: For a network without a low-rank layer, and for one that is a single low-rank layer of several blocks.
    """
    result = duplicate(check_module(model))
    names = [name for name, module in result.named_modules() if isinstance(module, Compressed)]
    if not names:
        raise InputError("model", type(model).__name__, "it has no low-rank layer")
    changed = False
    for name in names:
        layer = result.get_submodule(name)
        assert isinstance(layer, Compressed)
        held = layer._buffers.keys() - {*layer.own} or layer._forward_hooks or layer._forward_pre_hooks
        plain = None if held else layer.plain_layers()
        if plain is None:
            log.warning(
                "layer %s stays as it is: it has several blocks, none that is left, a padding mode other than zeros, or buffers or hooks",
                name or "(the network)",
            )
        else:
            whole = plain[0] if len(plain) == 1 else Chain(plain, layer)
            result, changed = replace_layer(result, name, whole.train(layer.training)), True
    if changed:
        result.lrp_unfolded = True  # type: ignore[assignment]
    return result


as_plain = unfold  # what other tools call such a network
