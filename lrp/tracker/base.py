"""What every tracker is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd


class Tracked(Protocol):
    """A job's view of one run of a tracker."""

    def rows(self, rows: pd.DataFrame) -> None:
        """The rows that an earlier, killed run of the same job had finished."""
        ...

    def row(self, row: Mapping[str, Any], layers: pd.DataFrame | None) -> None:
        """A row that is finished, and the rows of the table of layers that belong to it; None: the job has no such table."""
        ...

    def epoch(self, training: str, which: str, values: Mapping[str, float]) -> None:
        """An epoch of a training: its number ``epoch``, from 1, and what was measured. ``which`` tells trainings of one kind apart,
        such as fine-tunings at several sparsities; "": there is one. An epoch that was told before may be told again."""
        ...

    def model(self, path: Path, label: str, row: Mapping[str, Any]) -> None:
        """A network that was saved, the label of its sparsity and its row."""
        ...

    def files(self, paths: Sequence[Path]) -> None:
        """Tables, figures and pages that the job has finished."""
        ...


class Tracker(Protocol):
    """Writes a job down elsewhere, beside its own tables, which never depend on it.

    Attributes:
        name: What the command line calls it.
        active: Whether anything is written, so that it is worth while to draw for it.
    """

    name: ClassVar[str]
    active: ClassVar[bool]

    def start(
        self, settings: Mapping[str, Any], chosen: Mapping[str, str], folder: Path, group: str | None
    ) -> AbstractContextManager[Tracked]:
        """A run of the job in ``folder``, for as long as the context lasts; ``chosen`` names the option of each group, ``group`` the
        sweep; None: the tracker names one."""
        ...
