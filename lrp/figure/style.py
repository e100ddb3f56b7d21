"""What the figures share."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

if "ipykernel" not in sys.modules:  # a notebook shows what its own cells draw
    matplotlib.use("Agg")  # files only: this needs no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from lrp.errors import InputError
from lrp.files import write_text, write_whole
from lrp.results.labels import distinct


def one_setting(table: pd.DataFrame, keys: list[str], measured: list[str]) -> pd.DataFrame:
    """The rows of one setting, each cell and seed once (the last).

    Raises:
        InputError: Where rows differ in anything else.
    """
    settings = [name for name in table if name not in [*keys, *measured, "seed", "folder"]]
    differing = [name for name in settings if distinct(table[name]) > 1]
    if differing:
        raise InputError(f"the tables mix settings ({', '.join(differing)} differ): draw one setting at a time")
    return table.drop_duplicates(subset=[*keys, "seed"], keep="last")


def heat_map(ax: Axes, grid: np.ndarray, rows: list, columns: list, low: float, high: float) -> None:
    """A heat map with its numbers; what is missing stays empty."""
    ax.imshow(grid, vmin=low, vmax=max(high, low + 1e-9), cmap="viridis", aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    for (i, j), value in np.ndenumerate(grid):
        if value == value:
            ax.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color="black" if value > (low + high) / 2 else "white")


def save_figure(figure: MplFigure, target: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside ``target``, whose own suffix does not count, and close it; both paths."""
    stem = target.with_suffix("") if target.suffix in (".png", ".pdf") else target
    paths = [stem.parent / f"{stem.name}{suffix}" for suffix in (".png", ".pdf")]
    for path in paths:
        write_whole(path, lambda file: figure.savefig(file, dpi=150))
    plt.close(figure)
    return paths


def save_with_legend(figure: MplFigure, target: Path, columns: int = 3) -> list[Path]:
    """As ``save_figure``, with the legend of the first axes below the figure, in this many columns."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    labels = [textwrap.fill(label, 150 // columns) for label in labels]
    height = figure.get_figheight()
    legend = 0.3 + 0.16 * -(-sum(label.count("\n") + 1 for label in labels) // columns)  # inches
    figure.set_figheight(height + legend)
    figure.legend(handles, labels, loc="lower center", ncol=columns, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, legend / (height + legend), 1, 1))
    return save_figure(figure, target)


def write_tables(target: Path, markdown: str, cells: pd.DataFrame | None = None) -> list[Path]:
    """A figure's table beside it: as Markdown, and as .csv where ``cells`` are given; the paths."""
    paths = []
    if cells is not None:
        paths.append(target.parent / f"{target.name}_table.csv")
        write_whole(paths[0], lambda path: cells.to_csv(path, index=False))
    paths.append(target.parent / f"{target.name}_table.md")
    write_text(paths[-1], markdown)
    return paths


def band(ax: Axes, x: pd.Series, mean: pd.Series, spread: pd.Series, colour: str) -> None:
    """One standard deviation on both sides of a line, shares as percent."""
    spread = spread.fillna(0)
    ax.fill_between(x, 100 * (mean - spread), 100 * (mean + spread), color=colour, alpha=0.15)
