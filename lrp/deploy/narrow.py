"""What files say of layers that are narrower than their architecture has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lrp.errors import InputError
from lrp.layer.sliced import narrowed, resize


def narrow_layers(model: nn.Module) -> dict[str, dict[str, Any]]:
    """By name the layers and batch norms that features were taken out of: their type, and their sizes before and now."""
    found = {name: narrowed(module) for name, module in model.named_modules()}
    return {name: sizes for name, sizes in found.items() if sizes is not None}


def restore_narrow(model: nn.Module, described: Mapping[str, Mapping[str, Any]], other: str) -> None:
    """Give the layers of a network that was just made the sizes of a file, in place; their values are still to come.

    Raises:
        InputError: Beginning with ``other``, where the network has other layers than the file was written from.
        ValueError: For sizes that no such layer can have.
    """
    modules = dict(model.named_modules())
    for name, layer in described.items():
        module = modules.get(name)
        if module is None or type(module).__name__ != layer["type"]:
            raise InputError(
                f"{other}: it has a {layer['type']} {name}, this one {'lacks it' if module is None else f'a {type(module).__name__}'}"
            )
        now = {key: getattr(module, key, None) for key in layer["from"]}
        if differing := [f"{key}={layer['from'][key]} instead of {value}" for key, value in now.items() if layer["from"][key] != value]:
            raise InputError(f"{other}: its layer {name} had {', '.join(differing)} before it was narrowed")
        resize(module, layer["to"])
