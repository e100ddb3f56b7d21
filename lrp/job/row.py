"""A row of results.csv: the parts and options that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Options that change no result, and the name of a combination of parts, which has a column.
_NOT_LISTED = ("estimator.memory_limit", "method.name", "method.parts")
_ABSENT = object()


def changed_options(group: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The options with other values than their defaults, by their full names: ["scorer.depth=0.5", "scorer.floor=0.1"]."""
    words = []
    for key, value in settings.items():
        name, default = f"{group}.{key}" if group else key, defaults.get(key, _ABSENT)
        if name in _NOT_LISTED or value == default:
            continue
        if isinstance(value, Mapping):
            words += changed_options(name, value, default if isinstance(default, Mapping) else {})
        else:
            value = int(value) if isinstance(value, float) and value.is_integer() else value  # 1 and 1.0 are one setting
            words.append(f"{name}={str(value).replace(' ', '')}")  # words are divided by spaces
    return words


def part_names(method: Any) -> dict[str, Any]:
    """The columns that say which parts a method is made of, empty where it has none."""
    groups = ("blocking", "decomposition", "scorer", "estimator", "selection")
    named = {name: getattr(getattr(method, name, None), "name", None) for name in groups}
    selection = getattr(method, "selection", None)
    usual = {"per_parameter": False, "round_to": 1, "break_even": "params"}  # what a selection does that has no such option
    options = {name: None if selection is None else getattr(selection, name, value) for name, value in usual.items()}
    return {**named, **options, "blocking_k": getattr(getattr(method, "blocking", None), "k", None)}


def _share(value: Tensor | float | None, energy: float) -> float | None:
    return None if value is None else float(value) / max(energy, torch.finfo(torch.float64).tiny)
