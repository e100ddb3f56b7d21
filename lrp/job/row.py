"""A row of results.csv: the parts and options that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lrp.results.labels import line_label

# Options that change no result, the name of a combination of parts, which has a column, and forms, which are listed as they are used.
_NOT_LISTED = ("estimator.memory_limit", "compensation.memory_limit", "method.name", "method.parts", "method.forms")
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


def part_names(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say which parts a method is made of, empty where it has none; ``parts``: by group."""
    groups = ("blocking", "decomposition", "scorer", "estimator", "selection")
    named = {name: parts[name].name if name in parts else None for name in groups}
    usual = {"per_parameter": False, "round_to": 1, "break_even": "params"}  # what a selection does that has no such option
    options: dict[str, Any] = dict.fromkeys(usual)
    if "selection" in parts:
        options = {name: getattr(parts["selection"], name, value) for name, value in usual.items()}
    return {**named, **options, "blocking_k": getattr(parts["blocking"], "k", None) if "blocking" in parts else None}


def share(value: Tensor | float | None, energy: float) -> float | None:
    """A perturbation as a share of the energy E ||y||^2 of the dense outputs."""
    return None if value is None else float(value) / max(energy, torch.finfo(torch.float64).tiny)


def chosen_parts(job: Any, dataset: str) -> dict[str, str]:
    """The option of each group, for trackers and the log."""
    method = job.method
    named = {"dataset": dataset, "model": job.model.name, "method": method.name, "recovery": job.recovery.name}
    parts = {name: value for name, value in part_names(job.parts).items() if value is not None}
    chosen = {**named, "compensation": method.compensation.name, **parts}
    return {**chosen, "label": line_label(chosen)}


def asked_columns(job: Any, dataset: str, checkpoint: str, scoring_images: int, calibration_images: int) -> dict[str, Any]:
    """The columns of a row that say what was asked for, but the sparsity."""
    method = job.method
    return {
        "model": job.model.name, "checkpoint_sha256": checkpoint, "dataset": dataset, "method": method.name, **part_names(job.parts),
        "scoring_images": scoring_images, "exclude": " ".join(method.exclude) or None, "compensation": method.compensation.name,
        "recovery": job.recovery.name, "options": job.options, "seed": job.seed, "part": job.part,
        "calibration_images": calibration_images, "calibration_seed": job.calibration.seed,
    }  # fmt: skip
