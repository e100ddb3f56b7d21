"""What the scripts of this folder share: Markdown tables and texts, and the CSV files that they are written from."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments/results"
sys.path.append(str(ROOT / "experiments"))  # the rules by which claims are checked are network_claims.py


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


def said(values: Iterable[float], digits: int = 1) -> str:
    """Numbers in a row: "1.0, 2.0 and 3.0"."""
    texts = [f"{value:.{digits}f}" for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def between(values: Iterable[float], digits: int = 0) -> str:
    """The least and the largest number: "1 to 3"; one number where both read alike."""
    held = list(values)
    least, most = f"{min(held):.{digits}f}", f"{max(held):.{digits}f}"
    return least if least == most else f"{least} to {most}"


def bullets(*texts: str) -> str:
    return "\n".join(_wrapped(text, "* ", "  ") for text in texts)


def paragraph(*texts: str) -> str:
    return _wrapped(" ".join(texts), "", "")


def _wrapped(text: str, first: str, later: str) -> str:
    """In lines; a number stays beside its sign, since the site takes a line that begins with % for a comment."""
    held = re.sub(r" (?=[%±])", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(held, 150, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")
