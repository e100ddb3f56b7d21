"""The tables and the figure of figure 2, from result tables alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lrp.figure.base import Figure
from lrp.figure.style import band, heat_map, one_setting, save_figure, write_tables
from lrp.results.collect import collect_study

_KEYS = ["rank_before", "rank_after", "switch_epoch"]
_MEASURED = ["accuracy", "accuracy_best_after_switch", "accuracy_before_switch", "accuracy_at_switch", "params_hidden", "loss"]


def figure2_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds (shares) of every cell."""
    rows = one_setting(table, _KEYS, _MEASURED)
    cells = rows.groupby(_KEYS)[_MEASURED[:4]].agg(["mean", "std"])
    cells.columns = ["_".join(column) for column in cells.columns]
    return cells.assign(seeds=rows.groupby(_KEYS).size()).reset_index()


def figure2_markdown(cells: pd.DataFrame) -> str:
    """One row per cell, in percent."""
    lines = [
        "| rank before | rank after | switch after epoch | final | best after the switch | right before | right after | seeds |",
        "|---" * 8 + "|",
    ]
    for row in cells.itertuples(index=False):
        pair = lambda mean, std: "" if mean != mean else f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if std == std else "")  # noqa: E731
        lines.append(
            f"| {row.rank_before} | {row.rank_after} | {row.switch_epoch or 'none'} | {pair(row.accuracy_mean, row.accuracy_std)} "
            f"| {pair(row.accuracy_best_after_switch_mean, row.accuracy_best_after_switch_std)} "
            f"| {pair(row.accuracy_before_switch_mean, row.accuracy_before_switch_std)} "
            f"| {pair(row.accuracy_at_switch_mean, row.accuracy_at_switch_std)} | {row.seeds} |"
        )
    return "\n".join(lines) + "\n"


def missing_cells(cells: pd.DataFrame) -> list[str]:
    """The cells of the grid that the table spans but does not hold."""
    switched = cells[cells["switch_epoch"] > 0]
    have = set(zip(cells["rank_before"], cells["rank_after"], cells["switch_epoch"]))
    wanted = [(a, a, 0) for a in sorted({*cells["rank_before"]})]
    befores, afters = sorted({*cells["rank_before"]}), sorted({*switched["rank_after"]})
    wanted += [(a, b, e) for e in sorted({*switched["switch_epoch"]}) for a in befores for b in afters if a != b]
    return [f"{a} to {b} after {e}" if e else f"{a} throughout" for a, b, e in wanted if (a, b, e) not in have]


def draw_figure2(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Final accuracy against the switch epoch, one line per pair of ranks, and a heat map of the pairs for each switch epoch (.png,
    .pdf), with the table (.csv, .md); the title names what is missing. Returns the table as text, and the paths."""
    cells = figure2_table(table)
    epochs = sorted(cells[cells["switch_epoch"] > 0]["switch_epoch"].unique())
    ranks = {name: sorted({*cells[f"rank_{name}"]}, key=lambda rank: (rank == -1, rank)) for name in ("before", "after")}
    figure, axes = plt.subplots(1, 1 + len(epochs), figsize=(6.5 + 3.6 * len(epochs), 4.6), squeeze=False)
    _draw_lines(axes[0][0], cells, ranks)
    for ax, epoch in zip(axes[0][1:], epochs):
        _draw_pairs(ax, cells, ranks, epoch)
    missing = missing_cells(cells)
    figure.suptitle(_title(table.iloc[0], cells, missing), fontsize=10)
    figure.tight_layout()
    markdown = figure2_markdown(cells)
    said = f"{markdown}\nmissing: {', '.join(missing)}\n" if missing else f"{markdown}\nno cell is missing\n"
    return said, [*write_tables(target, markdown, cells), *save_figure(figure, target)]


def _draw_lines(ax: Axes, cells: pd.DataFrame, ranks: dict[str, list[int]]) -> None:
    """Final accuracy against the switch epoch; dotted: without a switch."""
    befores, afters = ranks["before"], ranks["after"]
    for (a, b), part in cells[cells["switch_epoch"] > 0].groupby(["rank_before", "rank_after"]):
        colour = f"C{befores.index(a)}"
        style: dict[str, Any] = {"color": colour, "linestyle": ["-", "--", ":", "-."][afters[::-1].index(b) % 4]}
        part = part.sort_values("switch_epoch")
        ax.plot(part["switch_epoch"], 100 * part["accuracy_mean"], "o", markersize=4, label=f"{a} to {b}", **style)
        band(ax, part["switch_epoch"], part["accuracy_mean"], part["accuracy_std"], colour)
    for row in cells[cells["switch_epoch"] == 0].itertuples(index=False):
        a = row.rank_before
        style = {"color": f"C{befores.index(a)}", "linewidth": 1, "linestyle": (0, (1, 3))}
        ax.axhline(100 * row.accuracy_mean, label=f"{a} throughout", **style)
    ax.set(xlabel="switch after epoch", ylabel="final test accuracy (%)", title="rank before to rank after (-1: dense)")
    ax.legend(fontsize=7, ncol=2)
    ax.grid(alpha=0.25)


def _draw_pairs(ax: Axes, cells: pd.DataFrame, ranks: dict[str, list[int]], epoch: int) -> None:
    """The final accuracy of every pair of ranks at one switch epoch."""
    befores, afters = ranks["before"], ranks["after"]
    grid = np.full((len(befores), len(afters)), np.nan)
    for row in cells[cells["switch_epoch"].isin([0, epoch])].itertuples(index=False):
        grid[befores.index(row.rank_before), afters.index(row.rank_after)] = 100 * row.accuracy_mean
    heat_map(ax, grid, befores, afters, 100 * cells["accuracy_mean"].min(), 100 * cells["accuracy_mean"].max())
    ax.set(title=f"switch after epoch {epoch}", xlabel="rank after", ylabel="rank before")


def _title(first: pd.Series, cells: pd.DataFrame, missing: list[str]) -> str:
    more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
    note = f"; missing: {', '.join(missing[:6])}{more}" if missing else ""
    setting = f"{first['dataset']}, {first['images']:,} images, {first['units']} units, {first['epochs']} epochs"
    return f"{setting}, {_count(cells['seeds'])} seeds{note}"


def _count(seeds: pd.Series) -> str:
    return str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"


FIGURE = Figure(
    "figure2", partial(collect_study, name="figure2", columns=["images", "units", "epochs", *_KEYS, *_MEASURED]), draw_figure2,
    "epochs.csv", "Figure 2: trained at one rank, then at another; draws what is there and says what is missing.",
)  # fmt: skip
