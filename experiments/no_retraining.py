"""Accuracy without a gradient step: a table and a figure of the result tables of experiment=no_retraining and its like.

python experiments/no_retraining.py outputs/<sweep> [...] --figure figure.png --table table.csv --reference alds.csv
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt

from lrp.config.parts import make
from lrp.figure.accuracy import average_over_seeds
from lrp.figure.style import save_with_legend
from lrp.files import write_whole
from lrp.results.collect import collect

SUFFIXES = {"accuracy_before_recovery": "", "accuracy": " + batch norm"}


@functools.cache
def _part(group: str, option: str) -> Any:
    return make(group, option)


def _reads_outputs(row: pd.Series) -> bool:
    """Whether a part of a row's method looks at the network's outputs or at their gradients."""
    parts = {group: _part(group, row[group]) for group in ("scorer", "decomposition", "selection") if isinstance(row[group], str)}
    asked = "scorer" in parts and parts["scorer"].reads_outputs
    asked |= "decomposition" in parts and "gradients" in parts["decomposition"].needs
    asked |= "selection" in parts and parts["selection"].reads_network
    return bool(asked or _part("compensation", row["compensation"]).needs)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method, without and with batch norm re-estimated, and sparsity: mean and standard deviation of the accuracy."""
    table = table.assign(compensation=table["compensation"].fillna("none"))
    table = table[table["recovery"] == "batchnorm"]
    # how outputs are read, and how many are scored, changes nothing where no part of the method asks
    unread = ~table.apply(_reads_outputs, axis=1)
    options = [
        " ".join(word for word in str(each).split() if not word.startswith("estimator."))
        for each in table.loc[unread, "options"].fillna("")
    ]
    table.loc[unread, "options"] = pd.Series(options, table.index[unread], dtype=object).replace("", None)
    table.loc[unread, "scoring_images"] = table["scoring_images"].max()
    table.loc[unread, "estimator"] = "none"
    parts = []
    for column, label in SUFFIXES.items():
        lines = average_over_seeds(table, column)
        parts.append(lines.assign(line=lines["line"] + label))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, sweeps or tables")
    parser.add_argument("--figure", type=Path, help="where the figure goes (.png, and .pdf beside it)")
    parser.add_argument("--table", type=Path, help="where all rows go (.csv)")
    parser.add_argument("--reference", type=Path, help="ALDS's own code: params_kept, accuracy, accuracy_batchnorm")
    args = parser.parse_args()
    table = collect(args.folders)
    if args.table:
        write_whole(args.table, lambda path: table.drop(columns="folder").drop_duplicates().to_csv(path, index=False))
    lines = summarise(table)
    text = lines.assign(
        text=[f"{100 * y:.2f}" + (f" ± {100 * s:.2f}" if n > 1 else "") for y, s, n in zip(lines["y"], lines["spread"], lines["seeds"])]
    )
    wide = text.pivot_table(index="line", columns="sparsity", values="text", aggfunc="first", sort=False).sort_index(axis=1).fillna("")
    print(wide.rename_axis(index=None, columns="sparsity").to_string())
    seconds = [name for name in table if name.startswith("seconds_")]
    print(table.groupby("method", sort=False)[seconds].median().round(1).to_string())
    if args.figure:
        draw(lines, args.figure, args.reference)


def draw(lines: pd.DataFrame, target: Path, reference: Path | None) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(13, 6.5), sharey=True)
    plain = ~lines["line"].str.endswith(SUFFIXES["accuracy"])
    for ax, part, title, column in (
        (axes[0], lines[plain], "nothing re-estimated", "accuracy"),
        (axes[1], lines[~plain], "batch norm re-estimated", "accuracy_batchnorm"),
    ):
        for number, (name, each) in enumerate(part.groupby("line", sort=False)):
            each = each.sort_values("x")
            ax.errorbar(
                each["x"],
                100 * each["y"],
                100 * each["spread"].fillna(0),
                marker="o",
                markersize=3,
                capsize=2,
                color=plt.cm.tab20(number % 20),
                label=name.removesuffix(SUFFIXES["accuracy"]),
            )
        if reference is not None:
            known = pd.read_csv(reference)
            known = known[known["params_kept"] <= 0.52]
            ax.plot(1 - known["params_kept"], 100 * known[column], "k--x", markersize=4, label="ALDS, its own code")
        ax.axhline(100 * part["dense"].iloc[0], color="grey", linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set(title=title, xlabel="sparsity (share of parameters removed)")
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("test accuracy (%)")
    save_with_legend(figure, target, columns=2)


if __name__ == "__main__":
    main()
