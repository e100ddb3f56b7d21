"""What a sweep is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_LONGEST = 48  # letters of what is swept over; more are counted


def sweep_name(hydra: Any) -> str:
    """Its methods, its model and its folder, which by default is its date and time: the same for all its jobs, and when it is resumed.
    ``hydra``: Hydra's own node of a job or of the sweep."""
    folder, chosen = Path(str(hydra.sweep.dir)), hydra.runtime.choices
    asked = _swept(folder)
    named = [asked.get(group, str(chosen.get(group))) for group in ("experiment", "study", "method", "model")]
    if named[1] not in ("None", "null"):
        named = named[:2]  # a study has a model of its own
    parts = [_short(name) for name in named if name not in ("None", "null")]
    return " ".join([*parts, *folder.parts[-2:]] if folder.parent.name[:2] == "20" else [*parts, folder.name])


def is_second_try(hydra: Any, folder: Path) -> bool:
    """Whether this sweep began the job of this folder before: a launcher starts a job again whose node was lost or that had to make way.
    The two files compared were written through one file system, so that clocks that differ do not matter."""
    try:
        begun = (Path(str(hydra.sweep.dir)) / "multirun.yaml").stat().st_mtime_ns
        return (folder / "config.yaml").stat().st_mtime_ns >= begun
    except OSError:
        return False


def _swept(folder: Path) -> Mapping[str, str]:
    """The words of a sweep by their names, as Hydra notes them before its first job; those on the command line come last."""
    try:
        noted = yaml.safe_load((folder / "multirun.yaml").read_text(encoding="utf-8"))["hydra"]
        words = {str(word).partition("=")[0]: str(word).partition("=")[2] for word in noted["overrides"]["task"]}
        return {**{key: str(value) for key, value in (noted["sweeper"].get("params") or {}).items()}, **words}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}


def _short(names: str) -> str:
    return names if len(names) <= _LONGEST else f"{names.count(',') + 1} of {names.partition(',')[0][:_LONGEST]} and others"
