"""The options of Hydra's own node: a word that begins with + adds any key to it, which nothing would read."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf


def added_to_hydra(overrides: Sequence[Override]) -> list[Override]:
    """The words that add a key to Hydra's own node; the others Hydra checks itself."""
    return [each for each in overrides if each.key_or_group.startswith("hydra.") and (each.is_add() or each.is_force_add())]


def instead(name: str, known: Collection[str], allowed: Sequence[str], before: str = "") -> str:
    """How a sentence ends that refuses a name: with the one of the known names that is close to it, or with all that are allowed there."""
    close = difflib.get_close_matches(name, known, 1)
    return f", did you mean {before}{close[0]}?" if close else f"; choose among {', '.join(allowed)}"


def no_hydra_key(key: str, config: DictConfig) -> str | None:
    """What is wrong with the name of an option of Hydra's; None where there is such an option, and for every other name.

    Mappings take any name: of callbacks, of loggers, of what a sweep is over, of variables of the environment.
    """
    names = key.split(".")
    if names[0] != "hydra":
        return None
    node: object = config.hydra
    for at, name in enumerate(names[1:], 1):
        kind = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
        if kind is None or not is_dataclass(kind) or not isinstance(node, DictConfig):
            return None
        known = {*(field.name for field in fields(kind)), *map(str, node)}  # of a sampler's options the type of its node has none
        if name not in known:
            return f"no option {'.'.join(names[: at + 1])}{instead(name, known, sorted(known), '.'.join([*names[:at], '']))}"
        node = node._get_node(name)
    return None
