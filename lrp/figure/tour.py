"""The first figure that a user sees: the paper's grid, and what refitting adds, on one scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt

from lrp.figure.accuracy import average_over_seeds
from lrp.figure.style import save_figure

BLOCKINGS = {"none": "one block", "alds": "four groups of channels (alds)", "square": "square blocks"}
COLOURS = dict(zip(BLOCKINGS, ("#0072b2", "#009e73", "#cc79a7")))
OURS = "#d55e00"
CHANCE = 0.1
APART = 0.05  # accuracy below the dense network's, from which on a network counts as spoiled


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The lines (``average_over_seeds``) of the paper's methods and of output_aware."""
    lines = average_over_seeds(table)
    ours = lines["line"].str.startswith("output_aware")
    return lines[~ours], lines[ours]


def draw_tour(table: pd.DataFrame, target: Path) -> list[Path]:
    """Accuracy against the share of parameters removed: a thin line for each blocking and scorer of the paper, and output_aware."""
    paper, ours = split(table)
    figure, ax = plt.subplots(figsize=(8, 5))
    for blocking, part in paper.groupby("blocking", sort=False):
        for at, (_, line) in enumerate(part.groupby("line", sort=False)):
            label = None if at else f"the paper, {BLOCKINGS.get(str(blocking), blocking)}"
            ax.plot(line["x"], 100 * line["y"], color=COLOURS.get(str(blocking)), linewidth=0.9, alpha=0.8, label=label)
    ax.plot(ours["x"], 100 * ours["y"], color=OURS, linewidth=2.4, marker="o", markersize=4)
    middle = ours.iloc[len(ours) // 2]
    above: dict[str, Any] = {"textcoords": "offset points", "va": "bottom"}
    ax.annotate("output_aware", (middle["x"], 100 * middle["y"]), (0, 5), color=OURS, ha="center", weight="bold", **above)
    for name, share in (("dense", table["accuracy_dense"].iloc[0]), ("chance", CHANCE)):
        ax.axhline(100 * share, color="grey", linewidth=0.8, linestyle=(0, (1, 3)))
        ax.annotate(name, (1, 100 * share), (-2, 2), color="grey", fontsize=8, ha="right", **above)
    ax.set(xlabel="share of the parameters removed", ylabel="test accuracy (%)", xlim=(-0.03, 1), ylim=(0, 108))
    ax.set_title("A slim VGG16 on 5,000 digits, nothing trained after pruning")
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.82), fontsize=8, frameon=False, title="a line for each score", title_fontsize=8)
    ax.grid(alpha=0.25)
    figure.tight_layout()
    return save_figure(figure, target)


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
