"""A row of results.csv: the parts and options that it names."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from lrp.method.base import METHOD_PARTS
from lrp.recovery.context import Unused
from lrp.results.columns import COLUMNS

# Options with a column, of their own name or (k) of another, and those on which no result depends. A part's seed is not the job's.
_NOT_LISTED = {*COLUMNS, "k", "name", "memory_limit"} - {"seed"}
_ELSEWHERE = {
    "samples": "calibration.samples",
    "keep_factor": "rounds.keep_factor",
    "macs_removed": "macs_removed",
}  # options of the method, as they are set


def part_names(method: Any) -> dict[str, Any]:
    """The columns that say which parts a method is made of, empty where it has none."""
    named = {
        name: getattr(getattr(method, name, None), "name", None)
        for name in ("blocking", "decomposition", "scorer", "estimator", "selection")
    }
    options = {name: getattr(getattr(method, "selection", None), name, None) for name in ("per_parameter", "round_to", "break_even")}
    return {**named, **options, "blocking_k": method.blocking.k if named["blocking"] == "alds" else None}


def changed_options(method: Any, recovery: Any) -> str:
    """The options that have no column and other values than their defaults: "scorer.depth=0.5 estimator.output=hellinger"."""
    parts = {name: getattr(method, name, None) for name in METHOD_PARTS} | {"method": method}
    if not isinstance(recovery, Unused):
        parts["recovery"] = recovery
    found = []
    for group, part in parts.items():
        for field in fields(part) if is_dataclass(part) else ():
            value = part.output_name if field.name == "output_fn" else getattr(part, field.name)
            if field.name not in _NOT_LISTED and field.default is not MISSING and value != field.default:
                value = int(value) if isinstance(value, float) and value.is_integer() else value  # 1 and 1.0 are one setting
                found.append(f"{_ELSEWHERE.get(field.name, f'{group}.{field.name}')}={value}")
    return " ".join(found)


def share(value: Tensor | float | None, energy: float) -> float | None:
    """A perturbation as a share of the energy E ||y||^2 of the dense outputs."""
    return None if value is None else float(value) / max(energy, torch.finfo(torch.float64).tiny)


def chosen_parts(job: Any, dataset: str) -> dict[str, str]:
    """The option of each group, for trackers and the log."""
    method = job.method
    named = {"dataset": dataset, "model": job.model.name, "method": method.name, "recovery": job.recovery.name}
    parts = {name: value for name, value in part_names(method).items() if value is not None}
    return {**named, "compensation": method.compensation.name, **parts}


def asked_columns(job: Any, dataset: str, checkpoint: str, scoring_images: int, calibration_images: int) -> dict[str, Any]:
    """The columns of a row that say what was asked for, but the sparsity."""
    method = job.method
    return {
        "model": job.model.name, "checkpoint_sha256": checkpoint, "dataset": dataset, "method": method.name, **part_names(method),
        "scoring_images": scoring_images, "exclude": " ".join(method.exclude) or None, "compensation": method.compensation.name,
        "recovery": job.recovery.name, "options": changed_options(method, job.recovery) or None, "seed": job.seed, "part": job.part,
        "calibration_images": calibration_images, "calibration_seed": job.calibration.seed,
    }  # fmt: skip
