"""Accuracy against parameters removed, nothing trained: all forms, matrices alone and the rivals, from the tables in experiments/results.

python experiments/forms_figure.py --out experiments/results/forms.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lrp.figure.style import band, save_with_legend

RESULTS = Path(__file__).parent / "results"
LINES = {  # method: what it is called, its colour
    "forms": ("lrp, all forms", "C3"),
    "output_aware": ("lrp, matrices alone", "C1"),
    "balf": ("BALF", "C0"),
    "alds": ("ALDS", "C2"),
    "input_tucker": ("Tucker-2 in the norm of the inputs", "C4"),
    "hosvd": ("Tucker-2 by higher-order SVD", "C5"),
    "svd_energy": ("SVD, equal energy", "C7"),
}


def lines(tables: list[tuple[str, str | None]]) -> pd.DataFrame:
    """One row per method and sparsity: the mean accuracy over seeds and its standard deviation. A rival's batch norm is re-estimated where
    that is better; ours is as compensation leaves it. ``tables``: names of files, and what their rows are called if not by their method."""
    parts = []
    for name, called in tables:
        table = pd.read_csv(RESULTS / f"{name}.csv")
        compensated = table["compensation"].eq("least_squares")
        ours = table["method"].eq("output_aware") & compensated & table["blocking"].eq("none") & table["exclude"].isna()
        table = table[ours | (~compensated & table["method"].isin(LINES))].assign(line=table["method"] if called is None else called)
        best = table[["accuracy", "accuracy_before_recovery"]].max(axis=1)
        table["y"] = best.where(~table["method"].eq("output_aware"), table["accuracy_before_recovery"])
        parts.append(table.groupby(["line", "sparsity"])["y"].agg(["mean", "std"]).reset_index())
        parts[-1]["dense"] = table["accuracy_dense"].iloc[0]
    return pd.concat(parts, ignore_index=True)


def draw(ax: Axes, found: pd.DataFrame, title: str, ticks: list[float], least: float) -> None:
    ax.axhline(100 * found["dense"].iloc[0], color="black", linewidth=0.8, linestyle=":", label="dense")
    for name, (label, colour) in LINES.items():
        part = found[found["line"] == name].sort_values("sparsity")
        x = -np.log2(1 - part["sparsity"])
        ax.plot(x, 100 * part["mean"], marker="o", markersize=4, color=colour, label=label, linewidth=2.2 if name == "forms" else 1.3)
        band(ax, x, part["mean"], part["std"], colour)
    ax.set_xticks([-np.log2(1 - tick) for tick in ticks], [f"{100 * tick:g}" for tick in ticks])
    ax.set_ylim(least, 100 * found["dense"].iloc[0] + 2)
    ax.set_title(title)
    ax.set_xlabel("parameters removed (%)")
    ax.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "forms.png")
    args = parser.parse_args()
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
    vgg16 = lines([("forms", "forms"), ("no_retraining", None)])
    resnet20 = lines([("forms_resnet20", "forms"), ("no_retraining_resnet20", None), ("forms_rivals", None)])
    draw(axes[0], vgg16, "VGG16, CIFAR-10, nothing trained", [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99], 30)
    draw(axes[1], resnet20, "ResNet-20, CIFAR-10, nothing trained", [0.3, 0.5, 0.7], 55)
    axes[0].set_ylabel("test accuracy (%)")
    for path in save_with_legend(figure, args.out, columns=4):
        print(path)


if __name__ == "__main__":
    main()
