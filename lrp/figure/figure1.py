"""The tables and the figure of figure 1, from result tables alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from lrp.figure.base import Figure
from lrp.figure.style import PAGE, grid, heat_map, one_setting, save_figure, styled, write_tables
from lrp.results.collect import collect_study
from lrp.results.labels import named

_KEYS = ["dim", "rank"]
_MEASURED = ["accuracy", "accuracy_validation", "loss", "params_hidden", "params"]

# Figure 1 of the paper: accuracy by dim (rows) and rank (columns).
PAPER_RANKS = (-1, 5, 10, 20, 50, 100, 200, 500)
PAPER = {
    10: (0.91, 0.64, 0.79),
    20: (0.94, 0.82, 0.86, 0.90),
    50: (0.96, 0.87, 0.91, 0.92, 0.95),
    100: (0.98, 0.90, 0.93, 0.95, 0.96, 0.97),
    200: (0.98, 0.91, 0.95, 0.95, 0.96, 0.98, 0.98),
    500: (0.98, 0.91, 0.95, 0.97, 0.98, 0.98, 0.98, 0.98),
}


def figure1_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of each cell, beside the paper's value."""
    rows = one_setting(table, _KEYS, _MEASURED)
    cells = rows.groupby(_KEYS)["accuracy"].agg(mean="mean", std="std", seeds="size").reset_index()
    paper = {(dim, rank): value for dim, values in PAPER.items() for rank, value in zip(PAPER_RANKS, values)}
    cells["paper"] = [paper.get((d, r)) for d, r in zip(cells["dim"], cells["rank"])]
    return cells


def figure1_markdown(cells: pd.DataFrame) -> str:
    """The table in the paper's shape: mean ± standard deviation (%), the paper's value in brackets."""
    ranks = sorted(cells["rank"].unique(), key=lambda rank: (rank != -1, rank))
    lines = ["| dim \\ rank | " + " | ".join(str(rank) for rank in ranks) + " |", "|---" * (len(ranks) + 1) + "|"]
    for dim, part in cells.groupby("dim"):
        found = {row.rank: row for row in part.itertuples(index=False)}
        texts = []
        for rank in ranks:
            row = found.get(rank)
            if row is None:
                texts.append("")
                continue
            spread = f" ± {100 * row.std:.1f}" if row.seeds > 1 else ""
            paper = f" ({100 * row.paper:.0f})" if row.paper == row.paper and row.paper is not None else ""
            texts.append(f"{100 * row.mean:.1f}{spread}{paper}")
        lines.append(f"| {dim} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


@styled
def draw_figure1(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """The table (.csv, .md) and the heat maps, ours and the paper's side by side (.png, .pdf); the table as text, and the paths."""
    cells = figure1_table(table)
    markdown = figure1_markdown(cells)
    ranks = sorted({*cells["rank"]}, key=lambda rank: (rank != -1, rank))
    dims = sorted({*cells["dim"]})
    panels = [(f"here, mean of {cells['seeds'].max()} seeds", "mean")]
    if cells["paper"].notna().any():
        panels.append(("the paper", "paper"))
    low, high = (100 * edge for edge in (cells[["mean", "paper"]].min().min(), cells[["mean", "paper"]].max().max()))
    figure, axes = grid(1, len(panels), PAGE if len(panels) > 1 else 4.2, 2.5, sharey=True)
    for ax, (title, column) in zip(axes[0], panels):
        shares = cells.pivot(index="dim", columns="rank", values=column).astype(float).reindex(index=dims, columns=ranks)
        names = ["dense" if rank == -1 else rank for rank in ranks]
        heat_map(ax, 100 * shares.to_numpy(float), dims, names, low, high, 0 if column == "paper" else 1)
        ax.set(title=title, xlabel="rank")
    axes[0][0].set_ylabel("units of the last hidden layer")
    figure.suptitle(f"Test accuracy (%) on {named(table['dataset'].iloc[0])} by size and rank of the last hidden layer")
    return markdown, [*write_tables(target, markdown, cells), *save_figure(figure, target)]


FIGURE = Figure(
    "figure1", partial(collect_study, name="figure1", columns=[*_KEYS, *_MEASURED]), draw_figure1, "epochs.csv",
    "Figure 1: accuracy by size and rank of the last hidden layer; the paper's values in brackets.",
)  # fmt: skip
