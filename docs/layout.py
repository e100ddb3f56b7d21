"""What the scripts of this folder share: Markdown tables, and the CSV files that they are written from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments/results"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a missing value is an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join("" if pd.isna(cell) else str(cell) for cell in line) + " |\n" for line in lines)


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / f"{name}.csv")


def percent(values: pd.Series, digits: int = 2) -> str:
    """Mean ± standard deviation of shares, in per cent; of one value no deviation."""
    spread = f" ± {100 * values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.{digits}f}{spread}"


def removed(share: float) -> str:
    return f"{100 * share:g} %"
