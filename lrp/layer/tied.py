"""Weights that several layers hold, as the table of an embedding is the weight of an output layer, and what networks know of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

TABLES = ("_tied_weights_keys", "all_tied_weights_keys")


def forget_ties(model: nn.Module, names: Iterable[str]) -> None:
    """Let a network of transformers, which ties weights by tables of names whenever it is asked to, leave these layers alone: they have no
    weight any more, and hold the same factors anyway."""
    gone = {f"{name}.weight" for name in names}
    for prefix, module in model.named_modules() if gone else ():
        for table in TABLES:
            held = getattr(module, table, None)
            if isinstance(held, dict):
                own = {key: source for key, source in held.items() if (f"{prefix}.{key}" if prefix else key) not in gone}
                vars(module)[table] = own
