"""What lines of figures and groups of a dashboard are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

SCORER_LABELS = {
    "perturbation": "alignment output (perturbation)",
    "variance": "alignment variance (variance)",
    "relative_error": "relative error",
}


def line_kind(row: Mapping[str, Any] | pd.Series) -> str:
    """What a line's colour stands for: the scorer, or a named method."""
    return row["scorer"] if row["method"] == "singular_vectors" else row["method"]


def line_label(row: Mapping[str, Any] | pd.Series) -> str:
    """A row's line before other differences are added: the scorer or the named method, and the blocking where it tells more."""
    kind, blocking = line_kind(row), row.get("blocking")
    cut = row["method"] == "singular_vectors" or (isinstance(blocking, str) and blocking != "none")
    return f"{SCORER_LABELS.get(kind, kind)}, {blocking}" if cut else kind


def distinct(column: pd.Series) -> int:
    """How many values a column holds; all that is missing (None, NaN) is one."""
    return column.nunique() + int(column.isna().any())
