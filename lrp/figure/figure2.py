"""The tables and the figure of figure 2, from result tables alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from lrp.figure.style import _heat, _save, one_setting
from lrp.files import write_text, write_whole


def figure2_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds (shares) of every cell."""
    measured = ["accuracy", "accuracy_best_after_switch", "accuracy_before_switch", "accuracy_at_switch", "params_hidden", "loss"]
    keys = ["rank_before", "rank_after", "switch_epoch"]
    rows = one_setting(table, keys, measured)
    found = rows.groupby(keys)[measured[:4]].agg(["mean", "std"])
    found.columns = ["_".join(column) for column in found.columns]
    return found.assign(seeds=rows.groupby(keys).size()).reset_index()


def figure2_markdown(cells: pd.DataFrame) -> str:
    """A row a cell, in percent."""
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


def draw_figure2(table: pd.DataFrame, target: Path) -> list[Path]:
    """Final accuracy against the switch epoch, a line a pair of ranks, and a heat map of the pairs for each switch epoch (.png,
    .pdf), with the table (.csv, .md); what is missing is said in the title. Returns the paths."""
    cells = figure2_table(table)
    csv, markdown = target.parent / f"{target.name}_table.csv", target.parent / f"{target.name}_table.md"
    write_whole(csv, lambda path: cells.to_csv(path, index=False))
    write_text(markdown, figure2_markdown(cells))
    switched, same = cells[cells["switch_epoch"] > 0], cells[cells["switch_epoch"] == 0].set_index("rank_before")
    epochs = sorted(switched["switch_epoch"].unique())
    figure, axes = plt.subplots(1, 1 + len(epochs), figsize=(6.5 + 3.6 * len(epochs), 4.6), squeeze=False)
    ax = axes[0][0]
    befores = sorted(cells["rank_before"].unique(), key=lambda rank: (rank == -1, rank))
    afters = sorted({*cells["rank_after"]}, key=lambda rank: (rank == -1, rank))
    for (a, b), part in switched.groupby(["rank_before", "rank_after"]):
        colour = f"C{befores.index(a)}"
        style = {"color": colour, "linestyle": ["-", "--", ":", "-."][afters[::-1].index(b) % 4]}
        part = part.sort_values("switch_epoch")
        ax.plot(part["switch_epoch"], 100 * part["accuracy_mean"], "o", markersize=4, label=f"{a} to {b}", **style)
        spread = part["accuracy_std"].fillna(0)
        ax.fill_between(
            part["switch_epoch"], 100 * (part["accuracy_mean"] - spread), 100 * (part["accuracy_mean"] + spread), color=colour, alpha=0.15
        )
    for a, row in same.iterrows():
        ax.axhline(100 * row["accuracy_mean"], color=f"C{befores.index(a)}", linewidth=1, linestyle=(0, (1, 3)), label=f"{a} throughout")
    ax.set(xlabel="switch after epoch", ylabel="final test accuracy (%)", title="rank before to rank after (-1: dense)")
    ax.legend(fontsize=7, ncol=2)
    ax.grid(alpha=0.25)
    low, high = 100 * cells["accuracy_mean"].min(), 100 * cells["accuracy_mean"].max()
    for ax, epoch in zip(axes[0][1:], epochs):
        grid = np.full((len(befores), len(afters)), np.nan)
        for row in cells[cells["switch_epoch"].isin([0, epoch])].itertuples(index=False):
            grid[befores.index(row.rank_before), afters.index(row.rank_after)] = 100 * row.accuracy_mean
        _heat(ax, grid, befores, afters, low, high)
        ax.set(title=f"switch after epoch {epoch}", xlabel="rank after", ylabel="rank before")
    missing = missing_cells(cells)
    first = table.iloc[0]
    note = f"; missing: {', '.join(missing[:6])}{f' and {len(missing) - 6} more' if len(missing) > 6 else ''}" if missing else ""
    figure.suptitle(
        f"{first['dataset']}, {first['images']:,} images, {first['units']} units, {first['epochs']} epochs, {_count(cells['seeds'])} seeds{note}",
        fontsize=10,
    )
    return [csv, markdown, *_save(figure, target)]


def _count(seeds: pd.Series) -> str:
    return str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
