"""What a tracked run is called: its name, its group and its tags say method, model and date."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

LONGEST = 128  # letters of a name or a group that W&B takes
LONGEST_TAG = 64

_TAGS = ("study", "method", "model", "dataset", "blocking", "decomposition", "scorer", "selection", "compensation", "recovery")


def what(chosen: Mapping[str, str]) -> str:
    """The method, with the label of its line in the figures where that tells more; of a study or a sweep its name."""
    method, label = chosen.get("method", chosen.get("study", "lrp")), chosen.get("label", "")
    return f"{method}: {label}" if label and not label.startswith(method) else label or method


def run_name(chosen: Mapping[str, str], settings: Mapping[str, Any], date: datetime) -> str:
    """Such as "singular_vectors: relative error, alds; vgg16_slim on mnist_small; seed 0; 2026-01-31 12:00"."""
    on = " on ".join(chosen[name] for name in ("model", "dataset") if name in chosen)
    seed = f"seed {settings['seed']}" if on and "seed" in settings else ""
    return "; ".join(part for part in (what(chosen), on, seed, f"{date:%Y-%m-%d %H:%M}") if part)[:LONGEST]


def group_name(chosen: Mapping[str, str], date: datetime) -> str:
    """The group of a job that belongs to no sweep: method, model and day, so that its seeds come together."""
    return " ".join(part for part in (chosen.get("method", what(chosen)), chosen.get("model"), f"{date:%Y-%m-%d}") if part)[:LONGEST]


def tags(chosen: Mapping[str, str], more: list[str]) -> list[str]:
    """The names of the parts that do something, and ``more``, each once."""
    named = [str(chosen[name]) for name in _TAGS if chosen.get(name, "none") != "none"]
    return list(dict.fromkeys(tag[:LONGEST_TAG] for tag in (*named, *more)))
