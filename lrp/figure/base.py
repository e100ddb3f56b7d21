"""What a figure is: a picture and tables, drawn from result tables alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Figure:
    """One kind of figure. A study names its own by a dotted path (``study.figure``).

    ``name``: of the files that are drawn.
    ``collect``: puts together the tables below folders; raises InputError for tables of something else.
    ``draw``: draws a table, and the table of details where there is one, beside the path of a target without suffix; gives the
    text to print and the paths of what was written.
    ``details``: the file of the table of details in run folders; None: no details are collected.
    """

    name: str
    collect: Callable[[Sequence[Path]], pd.DataFrame]
    draw: Callable[..., tuple[str, list[Path]]]
    details: str | None = None
