"""The rows that a slow script has measured, in a CSV file: written whole after each, and not measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lrp.files import write_whole


class KeptRows:
    """Rows in a file, which need not be there yet.

    Attributes:
        table: All of them.
    """

    def __init__(self, path: Path, float_format: str | None = None) -> None:
        """``float_format``: of the numbers in the file."""
        self.path, self.float_format = path, float_format
        self.table = pd.read_csv(path) if path.exists() else pd.DataFrame()

    def of(self, **words: Any) -> pd.DataFrame:
        """The rows that have these values."""
        found = self.table
        for name, value in words.items():
            found = found[found[name] == value] if len(found) else found
        return found

    def has(self, **words: Any) -> bool:
        return len(self.of(**words)) > 0

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.table = pd.DataFrame([*self.table.to_dict("records"), *rows])
        write_whole(self.path, partial(self.table.to_csv, index=False, float_format=self.float_format))
