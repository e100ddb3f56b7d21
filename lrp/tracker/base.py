"""What every tracker is."""

from __future__ import annotations

from collections.abc import Mapping
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

    def file(self, path: Path) -> None:
        """A file that the job has finished."""
        ...


class Tracker(Protocol):
    """Writes a job down elsewhere, beside its own tables, which never depend on it.

    Attributes:
        name: What the command line calls it.
    """

    name: ClassVar[str]

    def start(
        self, settings: Mapping[str, Any], chosen: Mapping[str, str], folder: Path, group: str | None
    ) -> AbstractContextManager[Tracked]:
        """A run of the job in ``folder``, for as long as the context lasts; ``chosen`` names the option of each group, ``group`` the
        sweep."""
        ...
