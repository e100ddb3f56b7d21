"""What a figure is: a picture and tables, drawn from result tables alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Figure:
    """One kind of figure. A study names its own by a dotted path (``study.figure``).

    Attributes:
        name: Of the files that are drawn.
        collect: Puts together the tables below folders; an InputError for tables of something else.
        draw: Draws a table, and the table of details where there is one, beside the path of a target without suffix; gives the
            text to print and the paths of what was written.
        details: The file of the table of details in run folders; None: no details are collected.
        about: What it shows, for the help of the command line.
        arguments: Options that ``draw`` takes as well, as argparse describes them (``{"--title": {"help": "..."}}``).
    """

    name: str
    collect: Callable[[Sequence[Path]], pd.DataFrame]
    draw: Callable[..., tuple[str, list[Path]]]
    details: str | None = None
    about: str = ""
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
