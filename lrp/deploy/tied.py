"""Which compressed layers hold the same factors, in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lrp.layer.base import LowRank
from lrp.layer.tied import forget_ties


def holders(model: nn.Module) -> dict[str, str]:
    """Of each layer that holds the factors of one before it the name of the first that does."""
    found: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, module in model.named_modules():
        own = [p for key, p in module.named_parameters() if key != "bias"] if isinstance(module, LowRank) else []
        if own and first.setdefault(id(own[0]), name) != name:
            found[name] = first[id(own[0])]
    return found


def tie(model: nn.Module, layers: Mapping[str, Any], dense: Mapping[str, nn.Module]) -> None:
    """Let each of the ``layers`` whose entry says so hold the factors of another one; ``dense``: in whose places they are.

    Raises:
        ValueError: Where the two do not store the same blocks, or one is no such layer.
    """
    named = {name: entry["tied"] for name, entry in layers.items() if "tied" in entry}
    for name, first in named.items():
        layer, other = model.get_submodule(name), model.get_submodule(first)
        if not isinstance(layer, LowRank) or not isinstance(other, LowRank) or layer is other:
            raise ValueError(f"layer {name} cannot share the factors of {first}")
        layer.share(other, dense[name])
    forget_ties(model, {*named, *named.values()})
