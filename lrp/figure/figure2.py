"""The tables and the figure of figure 2, from result tables alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lrp.figure.base import Figure
from lrp.figure.palette import COLOURS, MARKERS, STROKES, Look
from lrp.figure.style import PAGE, band, curve, grid, heat_map, name_lines, one_setting, save_figure, styled, write_tables
from lrp.results.collect import collect_study
from lrp.results.labels import named

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


@styled
def draw_figure2(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Final accuracy against the switch epoch, one line per pair of ranks, and a heat map of the pairs for each switch epoch (.png,
    .pdf), with the table (.csv, .md); the title names what is missing. Returns the table as text, and the paths."""
    cells = figure2_table(table)
    epochs = sorted(cells[cells["switch_epoch"] > 0]["switch_epoch"].unique())
    ranks = {name: sorted({*cells[f"rank_{name}"]}, key=lambda rank: (rank == -1, rank)) for name in ("before", "after")}
    several = cells[cells["switch_epoch"] > 0]["rank_after"].nunique() > 1
    panels = epochs if several else [None]
    figure, axes = grid(1, 1 + len(panels), PAGE, 2.5, width_ratios=[1.5 if several else 1] + [1] * len(panels))
    curves = _draw_lines(axes[0][0], cells, ranks)
    if several:
        for ax, epoch in zip(axes[0][1:], epochs):
            _draw_pairs(ax, cells, ranks, epoch)
    else:  # the same, from the lowest line of a switch on
        curves = _draw_lines(axes[0][1], cells, ranks)
        switched = 100 * cells[cells["switch_epoch"] > 0]["accuracy_mean"]
        _, top = axes[0][1].get_ylim()
        axes[0][1].set_ylim(switched.min() - 0.15 * (top - switched.min()), top)
        axes[0][1].set_ylabel("")
    missing = missing_cells(cells)
    figure.suptitle(_title(table.iloc[0], cells, missing))
    name_lines(axes[0][0 if several else 1], curves)
    markdown = figure2_markdown(cells)
    said = f"{markdown}\nmissing: {', '.join(missing)}\n" if missing else f"{markdown}\nno cell is missing\n"
    return said, [*write_tables(target, markdown, cells), *save_figure(figure, target)]


def _draw_lines(ax: Axes, cells: pd.DataFrame, ranks: dict[str, list[int]]) -> list[tuple]:
    """Final accuracy against the switch epoch; dotted: without a switch. What ``name_lines`` takes."""
    befores, afters = ranks["before"], ranks["after"]
    groups = list(cells[cells["switch_epoch"] > 0].groupby(["rank_before", "rank_after"]))
    found = []
    ax.set_xscale("log")
    ax.margins(x=0.22, y=0.06)
    for i, ((a, b), part) in enumerate(groups):
        at, other = befores.index(a), afters[::-1].index(b)
        own = Look(COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)], STROKES[other % len(STROKES)], i % 2 == 1)
        part = part.sort_values("switch_epoch")
        curve(ax, part["switch_epoch"], 100 * part["accuracy_mean"], own, i / max(1, len(groups) - 1))
        band(ax, part["switch_epoch"], part["accuracy_mean"], part["accuracy_std"], own.colour)
        found.append((f"{_rank(a)} to {_rank(b)}", own, part["switch_epoch"].to_numpy(float), 100 * part["accuracy_mean"].to_numpy(float)))
    for row in cells[cells["switch_epoch"] == 0].itertuples(index=False):
        colour, height = COLOURS[befores.index(row.rank_before) % len(COLOURS)], 100 * row.accuracy_mean
        ax.axhline(height, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        found.append((f"{_rank(row.rank_before)} throughout", Look(colour, "", (0, (1, 2))), ax.get_xlim(), (height, height)))
    epochs = sorted(cells[cells["switch_epoch"] > 0]["switch_epoch"].unique())
    ax.set_xticks(epochs, [f"{epoch:g}" for epoch in epochs])
    ax.set_xticks([], minor=True)
    ax.set(xlabel="epochs before the switch", ylabel="final test accuracy (%)")
    return found


def _rank(rank: int) -> str:
    return "dense" if rank == -1 else f"rank {rank}"


def _pairs(cells: pd.DataFrame, epoch: int, ranks: dict[str, list[int]]) -> pd.DataFrame:
    """The final accuracy (%) of every pair of ranks at one switch epoch."""
    part = cells[cells["switch_epoch"].isin([0, epoch])]
    found = 100 * part.pivot(index="rank_before", columns="rank_after", values="accuracy_mean")
    return found.reindex(index=ranks["before"], columns=ranks["after"])


def _draw_pairs(ax: Axes, cells: pd.DataFrame, ranks: dict[str, list[int]], epoch: int) -> None:
    names = {name: ["dense" if rank == -1 else rank for rank in values] for name, values in ranks.items()}
    least, most = 100 * cells["accuracy_mean"].min(), 100 * cells["accuracy_mean"].max()
    heat_map(ax, _pairs(cells, epoch, ranks).to_numpy(float), names["before"], names["after"], least, most)
    ax.set(title=f"switch after epoch {epoch}", xlabel="rank after", ylabel="rank before")


def _title(first: pd.Series, cells: pd.DataFrame, missing: list[str]) -> str:
    more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
    note = f"; missing: {', '.join(missing[:6])}{more}" if missing else ""
    setting = f"{named(first['dataset'])}, {first['images']:,} images, {first['units']} units, {first['epochs']} epochs"
    return f"{setting}, {_count(cells['seeds'])} seeds{note}"


def _count(seeds: pd.Series) -> str:
    return str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"


FIGURE = Figure(
    "figure2", partial(collect_study, name="figure2", columns=["images", "units", "epochs", *_KEYS, *_MEASURED]), draw_figure2,
    "epochs.csv", "Figure 2: trained at one rank, then at another; draws what is there and says what is missing.",
)  # fmt: skip
