"""Trackers write a job down elsewhere, beside its own tables, which never depend on them; this one does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from lrp.tracker.base import Tracked


@dataclass(frozen=True)
class NoTracker:
    """Nothing is tracked."""

    name: ClassVar[str] = "none"
    active: ClassVar[bool] = False

    @contextlib.contextmanager
    def start(self, settings: Mapping[str, Any], chosen: Mapping[str, str], folder: Path, group: str | None) -> Iterator[Tracked]:
        """A run of the job in ``folder``; ``chosen`` names the option of each group, ``group`` the sweep."""
        yield self

    def rows(self, rows: pd.DataFrame) -> None:
        """The rows that an earlier, killed run had finished."""

    def row(self, row: Mapping[str, Any], layers: pd.DataFrame | None) -> None:
        """A row of results.csv, with its rows of layers.csv where there are any."""

    def epoch(self, training: str, which: str, values: Mapping[str, float]) -> None:
        """An epoch of a training."""

    def model(self, path: Path, label: str, row: Mapping[str, Any]) -> None:
        """A network that was saved."""

    def files(self, paths: Sequence[Path]) -> None:
        """Files to keep with the run."""
