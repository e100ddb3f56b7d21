"""The first figure that a user sees: the paper's grid, and what refitting adds, on one scale."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lrp.figure.accuracy import MACS, PARAMETERS, average_over_seeds
from lrp.figure.panels import small_multiples
from lrp.results.labels import named

APART = 0.05  # accuracy below the dense network's, from which on a network counts as spoiled


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The lines (``average_over_seeds``) of the paper's methods and of output_aware."""
    lines = average_over_seeds(table)
    ours = lines["scorer"] == "output_aware"
    return lines[~ours], lines[ours]


def draw_tour(table: pd.DataFrame, target: Path) -> list[Path]:
    """Accuracy against the share of parameters removed: a panel for each blocking with the paper's scores, and output-aware in each."""
    paper, ours = split(table)
    panels = [part.assign(panel=blocks, name=part["scorer"].map(named)) for blocks, part in paper.groupby("blocks", sort=False)]
    panels += [ours.assign(panel=blocks, name=ours["scorer"].map(named)) for blocks in paper["blocks"].unique()]
    lines = pd.concat(panels, ignore_index=True)
    title = "A slim VGG16 on 5,000 digits, nothing trained after pruning (axes stretched near 100 %)"
    return small_multiples(lines.assign(thing=lines["scorer"]), [PARAMETERS, MACS], target, "test accuracy (%)", title)


def conclusion(table: pd.DataFrame) -> str:
    """What the tables say, in three sentences."""
    paper, ours = split(table)
    dense = float(table["accuracy_dense"].iloc[0])
    spoiled = [share for share in sorted({*paper["sparsity"]}) if paper[paper["sparsity"] == share]["y"].max() < dense - APART]
    if not spoiled:
        return f"Some setting of the paper stays within {100 * APART:g} points of the dense network's {dense:.1%} everywhere."
    at = spoiled[0]
    best = paper[paper["sparsity"] == at].sort_values("y").iloc[-1]
    held = ours[ours["y"] >= dense - APART]["sparsity"].max()
    mine = float(ours[ours["sparsity"] == at]["y"].iloc[0])
    return (
        f"The dense network reads {dense:.1%} of the test digits. With {at:.0%} of the parameters removed the best setting of the "
        f"paper ({best['line']}) reads {best['y']:.1%}, and output_aware, which fits what is left to the outputs that the "
        f"layers had, {mine:.1%}. "
        f"output_aware stays within {100 * APART:g} points of the dense network up to {held:.0%} removed; nothing was trained afterwards "
        "(recovery=finetune), and batch norm was not estimated anew (recovery=batchnorm)."
    )
