"""Small multiples: accuracy against what is removed, panel by panel, with the names of lines beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lrp.figure.palette import INK, Look, look, looks
from lrp.figure.style import PAGE, accuracy_axis, band, curve, grid, level, name_lines, removed_axis, save_figure, styled

WRAPPED = 30  # letters of a line of a name
NAMED_EVERYWHERE, NAMED_ONCE = 3, 4  # panels beside each other, where each has names of its own or the last one's are those of all
_NOWHERE = ([0.0, 1.0], [np.nan, np.nan])  # of a name without a line


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
def small_multiples(
    lines: pd.DataFrame, axes: Sequence[Axis], target: Path, label: str, title: str = "", key: bool = False, linear: bool = False
) -> list[Path]:
    """A column for each panel and a row for each axis; .png and .pdf.

    Args:
        lines: ``panel``, ``name`` (of the line), ``thing`` (what its colour stands for), ``y`` and ``spread`` (shares), ``dense`` (the
            dense network's accuracy), ``seeds``, and the columns of ``axes``; one row per point.
        axes: What accuracy is drawn against; those of which no value is known are left out.
        target: Where the figure goes.
        label: Of the accuracy.
        title: Above the figure.
        key: Whether a name stands for one thing in each panel (its colour is then the panel's) and all names stand beside the last one.
        linear: Whether accuracy has a linear axis where it could be divided by the error that is left.
    """
    axes = [axis for axis in axes if lines[axis.column].notna().any()]
    lines = lines.assign(name=[textwrap.fill(name, WRAPPED) for name in lines["name"]])
    panels = {panel: part for panel, part in lines.groupby("panel", sort=False)}
    missing = {*lines["name"]} - {*[*panels.values()][-1]["name"]}  # beside the last panel
    once = key or len(panels) > 1 and len(missing) < 2
    alike = once and lines["dense"].dropna().round(6).nunique() < 2  # one network: one scale
    narrow = max(len(each) for name in lines["name"] for each in name.split("\n")) <= WRAPPED - 8
    columns = min(len(panels), NAMED_ONCE if once else NAMED_EVERYWHERE if narrow else 2)
    bands = -(-len(panels) // columns)  # rows of panels for each axis
    most = max(part["name"].nunique() * (part["name"].str.count("\n").max() + 1) for part in panels.values())
    height = max(1.9 if len(panels) > 1 else 2.5, 0.125 * most + 0.55)
    size = (PAGE if len(panels) > 1 else 4.8, bands * len(axes) * height + (0.3 if title else 0))
    figure, places = grid(bands * len(axes), columns, *size, sharey="row" if alike else False)
    chosen = _chosen(lines)
    named = []
    for i, axis in enumerate(axes):
        for j, (panel, part) in enumerate(panels.items()):
            ax = places[i * bands + j // columns][j % columns]
            own = {name: (replace(had, colour=_colour(part, name) or had.colour), depth) for name, (had, depth) in chosen.items()}
            found = _draw_panel(ax, part, axis, lines if alike else part, own, linear)
            if not found:
                ax.set_axis_off()
                continue
            if j % columns == 0:
                ax.set_ylabel(label)
            if i == 0 or bands > 1:
                ax.set_title(panel)
            last = j == len(panels) - 1
            if key and last and i == 0:
                named.append((ax, _key(lines, chosen)))
            elif not key and last and once:
                there = {each[0] for each in found}
                named.append((ax, [*found, *((name, had, *_NOWHERE) for name, (had, _) in chosen.items() if name not in there)]))
            elif not key and (not once or j % columns == columns - 1):
                named.append((ax, found))
        for ax in [*places[i * bands : (i + 1) * bands].flat][len(panels) :]:
            ax.set_axis_off()
    figure.suptitle(title)
    for ax, found in named:
        name_lines(ax, found, room=not key or len(panels) % columns == 0)
    return save_figure(figure, target)


def _chosen(lines: pd.DataFrame) -> dict[str, tuple[Look, float]]:
    """The look of each name, and how far above the others it lies: the same in all panels."""
    order = lines.drop_duplicates("name")
    return {name: (own, i / max(1, len(order) - 1)) for i, (name, own) in enumerate(zip(order["name"], looks([*order["thing"]])))}


def _colour(part: pd.DataFrame, name: str) -> str | None:
    things = part[part["name"] == name]["thing"]
    return look(things.iloc[0]).colour if len(things) else None


def _key(lines: pd.DataFrame, chosen: Mapping[str, tuple[Look, float]]) -> list[tuple]:
    """Every name; what has another colour in each panel is dark grey here."""
    several = lines.groupby("name")["thing"].nunique() > 1
    return [(name, replace(own, colour=INK) if several[name] else own, *_NOWHERE) for name, (own, _) in chosen.items()]


def _draw_panel(
    ax: Axes, part: pd.DataFrame, axis: Axis, of_scale: pd.DataFrame, chosen: Mapping[str, tuple[Look, float]], linear: bool
) -> list[tuple]:
    """Draw the lines of one panel on the scales of ``of_scale``; what ``name_lines`` takes, nothing where no place is known."""
    of_scale = of_scale[of_scale[axis.column].notna()]
    if part[axis.column].isna().all():
        return []
    accuracy_axis(ax, [*(100 * of_scale["y"]), *(100 * of_scale["dense"].dropna())], linear=linear)
    if axis.share:
        removed_axis(ax, [*of_scale[axis.column]], axis.label)
    else:
        ax.set_xlabel(axis.label)
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
