"""How far two sets of images agree about scores, from the table of experiments/scoring_study.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lrp.figure.base import Figure
from lrp.figure.palette import BLUE, ORANGE, Look
from lrp.figure.style import PAGE, curve, grid, name_lines, save_figure, styled
from lrp.results.collect import collect_tables

_COLUMNS = ("blocking", "output", "scorer", "images", "spearman_of_two_sets", "overlap_0.95")
_LOOKS = {
    ("logits", "perturbation"): Look(BLUE, "o", "-"),
    ("logits", "variance"): Look(ORANGE, "s", (0, (4, 1.6)), True),
    ("probabilities", "perturbation"): Look(BLUE, "^", (0, (2.5, 1))),
    ("probabilities", "variance"): Look(ORANGE, "D", (0, (1.2, 1.2)), True),
}


@styled
def draw_scoring_images(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Rank correlation and what both keep of two sets of images, by their number; the table as text, and the figure (.png, .pdf)."""
    table = table[table["blocking"] == table["blocking"].iloc[0]]
    figure, axes = grid(1, 2, PAGE, 2.3)
    for ax, column, label in zip(
        axes[0], ("spearman_of_two_sets", "overlap_0.95"), ("Spearman correlation of the scores", "components kept by both (%)")
    ):
        found = []
        ax.set_xscale("log", base=2)
        if column == "spearman_of_two_sets":
            ax.set_yscale("function", functions=(lambda value: -_log_rest(value), lambda place: 1 - 2.0**-place))
            ax.set_yticks([0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999])
            ax.yaxis.set_major_formatter("{x:g}")
        for i, ((output, scorer), own) in enumerate(_LOOKS.items()):
            part = table[(table["output"] == output) & (table["scorer"] == scorer)].dropna(subset=[column]).sort_values("images")
            if part.empty:
                continue
            y = part[column] * (100 if column.startswith("overlap") else 1)
            curve(ax, part["images"], y, own, i % 2)
            found.append((f"{scorer} of {output}", own, part["images"].to_numpy(float), y.to_numpy(float)))
        sizes = sorted(table["images"].unique())
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.set(xlabel="images in each of two disjoint sets", ylabel=label)
    axes[0][1].set_title("95 % of the parameters removed")
    name_lines(axes[0][1], found)
    return table[list(_COLUMNS)].to_string(index=False), save_figure(figure, target)


def _log_rest(value: object) -> np.ndarray:
    return np.log2(np.maximum(1 - np.asarray(value, float), 1e-6))


FIGURE = Figure(
    "scoring_images", partial(collect_tables, columns=_COLUMNS), draw_scoring_images, None,
    "How far the scores from two sets of images agree (the table of experiments/scoring_study.py).",
)  # fmt: skip
