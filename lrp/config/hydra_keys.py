"""The options of Hydra's own node: a word that begins with + adds any key to it, which nothing would read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lrp.errors import InputError


def check_hydra(overrides: Sequence[Override], config: DictConfig) -> None:
    """Nothing, where every key below ``hydra`` that is added is one that Hydra or a plugin of it has, or that may have any name.

    Args:
        overrides: The words of a command line.
        config: What they compose, with Hydra's own node.

    Raises:
        InputError: For another key, with those that there are.
    """
    for override in overrides:
        names = override.key_or_group.split(".")
        if names[0] != "hydra" or len(names) == 1 or not override.is_add() and not override.is_force_add():
            continue
        node: object = config.hydra
        for at, name in enumerate(names[1:], 1):
            of = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
            if of is None or not is_dataclass(of):
                break  # a value, or a mapping with names of the user's: callbacks, loggers, parameters of a sweep, variables of the environment
            known = [field.name for field in fields(of)]
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                said = f", did you mean {'.'.join([*names[:at], close[0]])}?" if close else f"; choose among {', '.join(sorted(known))}"
                raise InputError(f"{override.input_line}: no option {'.'.join(names[: at + 1])}{said}")
            node = node._get_node(name)
