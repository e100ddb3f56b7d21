"""Small multiples: accuracy against what is removed, panel by panel, with the names of lines beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lrp.figure.palette import Look, looks
from lrp.figure.style import PAGE, accuracy_axis, band, curve, grid, level, name_lines, removed_axis, save_figure, styled

NAMED_EVERYWHERE, NAMED_ONCE = 3, 4  # panels beside each other, where each has names of its own or the last one's are those of all


@dataclass(frozen=True)
class Axis:
    """What accuracy is drawn against.

    Attributes:
        column: Of the lines.
        label: Of the axis, with its unit.
        share: Whether it is a share that is removed, in [0, 1]; otherwise a number of its own, drawn linearly.
    """

    column: str
    label: str
    share: bool = True


@styled
def small_multiples(lines: pd.DataFrame, axes: Sequence[Axis], target: Path, label: str, title: str = "") -> list[Path]:
    """A column for each panel and a row for each axis; .png and .pdf.

    Args:
        lines: ``panel``, ``name`` (of the line), ``thing`` (what its colour stands for), ``y`` and ``spread`` (shares), ``dense`` (the
            dense network's accuracy), ``seeds``, and the columns of ``axes``; one row per point.
        axes: What accuracy is drawn against, without those of which no value is known.
        target: Where the figure goes.
        label: Of the accuracy.
        title: Above the figure.
    """
    axes = [axis for axis in axes if lines[axis.column].notna().any()]
    panels = list(dict.fromkeys(lines["panel"]))
    last = {*lines[lines["panel"] == panels[-1]]["name"]}
    once = len(panels) > 1 and all({*lines[lines["panel"] == panel]["name"]} <= last for panel in panels)
    columns = min(len(panels), NAMED_ONCE if once else NAMED_EVERYWHERE)
    bands = -(-len(panels) // columns)  # rows of panels for each axis
    most = max(lines.groupby("panel")["name"].nunique())
    width = PAGE if len(panels) > 1 else 4.8
    height = max(1.9 if len(panels) > 1 else 2.5, 0.125 * most + 0.55)
    order = lines.drop_duplicates("name")
    chosen = {name: (own, i / max(1, len(order) - 1)) for i, (name, own) in enumerate(zip(order["name"], looks([*order["thing"]])))}
    figure, grid_of = grid(
        bands * len(axes), columns, width, bands * len(axes) * height + (0.3 if title else 0), sharey="row" if once else False
    )
    named = []
    for i, axis in enumerate(axes):
        for j, panel in enumerate(panels):
            ax = grid_of[i * bands + j // columns][j % columns]
            of_row = lines if once else lines[lines["panel"] == panel]
            found = draw_panel(ax, lines[lines["panel"] == panel], axis, lines[axis.column].dropna(), of_row, chosen)
            if j % columns == 0:
                ax.set_ylabel(label)
            if i == 0:
                ax.set_title(panel)
            if not once or j % columns == columns - 1 or j == len(panels) - 1:
                named.append((ax, found))
        for j in range(len(panels), bands * columns):
            grid_of[i * bands + j // columns][j % columns].set_axis_off()
    if title:
        figure.suptitle(title)
    for ax, found in named:
        name_lines(ax, found)
    return save_figure(figure, target)


def draw_panel(
    ax: Axes, part: pd.DataFrame, axis: Axis, places: pd.Series, of_row: pd.DataFrame, chosen: Mapping[str, tuple[Look, float]]
) -> list[tuple]:
    """Draw the lines of one panel; what ``name_lines`` takes.

    Args:
        ax: The panel.
        part: Its lines.
        axis: What they are drawn against.
        places: All that is known of it.
        of_row: The lines that share the heights.
        chosen: The look of each name, and how far above the others it lies.
    """
    heights = 100 * pd.concat([of_row["y"], of_row["dense"].dropna() if "dense" in of_row else of_row["y"]])
    accuracy_axis(ax, list(heights))
    if axis.share:
        removed_axis(ax, list(places), axis.label)
    else:
        ax.set_xlabel(axis.label)
        ax.margins(x=0.05)
    found = []
    for name, (own, depth) in chosen.items():
        line = part[part["name"] == name].dropna(subset=[axis.column, "y"]).sort_values(axis.column)
        if line.empty:
            continue
        curve(ax, line[axis.column], 100 * line["y"], own, depth)
        if (line["seeds"] > 1).any():
            band(ax, line[axis.column], line["y"], line["spread"], own.colour)
        found.append((name, own, line[axis.column].to_numpy(float), 100 * line["y"].to_numpy(float)))
    for dense in sorted({*np.round(part["dense"].dropna(), 6)}):
        level(ax, 100 * dense, "dense", right=True)
    return found
