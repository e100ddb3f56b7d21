"""The names of a network's blocks, and of what is in them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from lrp.errors import InputError
from lrp.layer.build import find_kind

HOLDERS = nn.ModuleList | nn.Sequential | nn.ModuleDict


def names_of_blocks(model: nn.Module, blocks: Sequence[str] | str) -> list[str]:
    """The names of the blocks, where those of a module that holds them were meant.

    Raises:
        InputError: For names that the network does not have, or none.
    """
    known = dict(model.named_modules())
    given: list[str] = [*blocks] if isinstance(blocks, Sequence) and not isinstance(blocks, str) else [blocks]
    if missing := [name for name in given if name not in known]:
        holders = [name for name, module in known.items() if isinstance(module, HOLDERS)]
        raise InputError(
            "blocks", missing[0], f"the network has no such module; modules that hold others are {', '.join(holders[:6]) or 'none'}"
        )
    if isinstance(blocks, str) and isinstance(known[blocks], HOLDERS):
        given = [f"{blocks}.{name}" for name, _ in known[blocks].named_children()]
    if not given:
        raise InputError("blocks", blocks, "names no block")
    return given


def fits(name: str, pattern: str) -> bool:
    """Whether a layer is named by a pattern, or is in a module that is."""
    return fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}.")


def within(name: str, blocks: Sequence[str]) -> bool:
    """Whether a module, parameter or buffer is one of the blocks, or in one of them."""
    return f"{name}.".startswith(tuple(f"{block}." for block in blocks))


def check_layers(model: nn.Module, blocks: Sequence[str], exclude: Sequence[str]) -> None:
    """That each pattern of ``exclude`` names something in the blocks, and that no layer to compress holds a weight that is held outside of
    its block as well: one of the two would not be compressed, or each in its own way.

    Raises:
        InputError: For a pattern or a layer for which it is not so.
    """
    known = [name for name, _ in model.named_modules() if within(name, blocks)]
    for pattern in exclude:
        if not any(fits(name, pattern) for name in known):
            raise InputError("exclude", pattern, "fits nothing in the blocks")
    holders: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), []).append(name)
    for block in blocks:
        for name, module in model.get_submodule(block).named_modules(prefix=block):
            if find_kind(module) is None or any(fits(name, pattern) for pattern in exclude):
                continue
            shared = [held for each in module.parameters() for held in holders[id(each)] if not within(held, [block])]
            if shared:
                raise InputError("blocks", block, f"its layer {name} holds a weight that is also {shared[0]}; exclude the layer")
