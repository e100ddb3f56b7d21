"""How memory and time of lrp.compress grow with a network and its examples, from the table of experiments/scale.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from lrp.figure.base import Figure
from lrp.figure.palette import looks
from lrp.figure.style import PAGE, curve, grid, name_lines, save_figure, styled
from lrp.results.collect import collect_tables

_COLUMNS = ("network", "size", "examples", "parameters", "peak_gib", "seconds")
_MEASURED = {"peak_gib": "peak (GiB)", "seconds": "processor seconds"}
# what grows: the network whose rows show it, the column that it is, and the column whose values are lines of their own
_GROWS = {
    "parameters": ("chain", "parameters", "examples"),
    "layers": ("chain_layers", "size", "examples"),
    "outputs": ("chain_outputs", "size", "examples"),
    "examples": ("chain", "examples", "size"),
}


def growth(table: pd.DataFrame) -> pd.DataFrame:
    """How memory and time grow on chains of Linear layers.

    Returns:
        One row for each thing that grows and each value of what is held (``with``, ``held``): from where to where it grows, how many rows
        show it, and the exponents of ``peak_gib`` and of ``seconds``, fitted by least squares on logarithms.
    """
    rows = []
    for what, held, points, x in _lines(table):
        logarithms = np.log(points[[x, *_MEASURED]].to_numpy(float))
        fitted = dict(zip(_MEASURED, np.polyfit(logarithms[:, 0], logarithms[:, 1:], 1)[0]))
        rows.append({"with": what, "held": held, "from": points[x].iloc[0], "to": points[x].iloc[-1], "rows": len(points), **fitted})
    return pd.DataFrame(rows, columns=["with", "held", "from", "to", "rows", *_MEASURED])


def _lines(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame, str]]:
    """What grows, what is held, the rows in their order, and the column of what grows."""
    found = []
    for what, (network, x, lines) in _GROWS.items():
        for value, points in table[table["network"] == network].groupby(lines):
            if points[x].nunique() > 1:
                held = f"{value:.0f} examples" if lines == "examples" else f"{value:.0f} features"
                found.append((what, held, points.sort_values(x), x))
    return found


@styled
def draw_growth(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Memory above, time below, a column for each thing that grows, all axes logarithmic; the exponents as text."""
    fitted = growth(table)
    lines = list(zip(_lines(table), fitted.to_dict("records")))  # in the same order
    panels = list(dict.fromkeys(fitted["with"]))
    figure, axes = grid(2, max(1, len(panels)), PAGE, 3.6, sharey="row")
    for i, (column, label) in enumerate(_MEASURED.items()):
        for j, panel in enumerate(panels):
            ax, named = axes[i][j], []
            ax.set(xscale="log", yscale="log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            own = [line for line in lines if line[0][0] == panel]
            for depth, (look, ((_, held, points, x), power)) in enumerate(zip(looks([line[0][1] for line in own]), own)):
                curve(ax, points[x], points[column], look, depth / len(own))
                name = f"{held},\nexponent {power[column]:.2f}"
                named.append((name, look, points[x].to_numpy(float), points[column].to_numpy(float)))
            if i == 1:
                ax.set_xlabel(panel)
            if j == 0:
                ax.set_ylabel(label)
            for axis, written in ((ax.xaxis, "{x:,.0f}"), (ax.yaxis, "{x:g}")):
                axis.set_major_formatter(written)
                axis.set_minor_formatter(NullFormatter())
            if len(named) == 1:
                ax.set_title(named[0][0])
            else:
                name_lines(ax, named)
    return fitted.round(2).to_string(index=False), save_figure(figure, target)


FIGURE = Figure(
    "growth", partial(collect_tables, columns=_COLUMNS), draw_growth, None,
    "How memory and time of lrp.compress grow (the table of experiments/scale.py).",
)  # fmt: skip
