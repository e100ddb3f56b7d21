"""The tables of docs/results/cited.md."""

from __future__ import annotations

import itertools

import pandas as pd
from layout import markdown, read, removed

UNITS = {"svd": "singular triplets", "filters": "filters", "entries": "weights"}
TREATMENTS = {"nothing recovered": "nothing", "batch norm re-estimated": "batch norm", "compensated": "compensated"}


def cited() -> str:
    """One row per network, unit and score: accuracy by treatment and sparsity, and the seconds and memory of the score."""
    table, costs = read("cited_summary"), read("cited_cost").set_index(["model", "decomposition", "scorer"])
    columns = list(itertools.product(TREATMENTS, sorted(table["sparsity"].unique())))
    rows = []
    for model, unit in itertools.product(table["model"].unique(), UNITS):
        part = table[(table["model"] == model) & (table["decomposition"] == unit)]
        found = {column: part[(part["treatment"] == column[0]) & (part["sparsity"] == column[1])].set_index("score") for column in columns}
        order = part[part["sparsity"] == part["sparsity"].min()].groupby("score")["mean"].max().sort_values(ascending=False).index
        for score in order:
            cells = [_accuracy(found[column], score) for column in columns]
            key = (model, unit, score.split(",")[0])
            cost = costs.loc[key] if key in costs.index else None
            spent = ["", ""] if cost is None else [_short(cost["seconds"]), f"{cost['mib']:.0f}"]
            rows.append([model, UNITS[unit], score, *cells, *spent])
    header = [f"{TREATMENTS[treatment]}, {removed(sparsity)}" for treatment, sparsity in columns]
    return markdown(["network", "unit", "score", *header, "seconds", "MiB"], rows)


def _accuracy(part: pd.DataFrame, score: str) -> str:
    """Mean ± standard deviation over seeds; the best of a column is bold, where one is."""
    if score not in part.index:
        return ""
    row = part.loc[score]
    text = f"{100 * row['mean']:.1f}" + (f" ± {100 * row['std']:.1f}" if row["size"] > 1 else "")
    best = row["mean"] == part["mean"].max() and (part["mean"] == row["mean"]).sum() == 1
    return f"**{text}**" if best else text


def _short(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}" if seconds >= 0.1 else "< 0.1"


def cited_correlation() -> str:
    """Above the diagonal Spearman's, below it Kendall's correlation of each pair of scores."""
    table = read("cited_correlation")
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    pairs = table.set_index(["a", "b"])
    rows = []
    for i, a in enumerate(names):
        cells = []
        for j, b in enumerate(names):
            if i == j:
                cells.append("")
                continue
            key, column = ((a, b), "spearman") if i < j else ((b, a), "kendall")
            cells.append(f"{pairs.loc[key, column]:.2f}")
        rows.append([a, *cells])
    return markdown(["", *names], rows)


def cited_identity() -> str:
    """Curvature over half the perturbation of the softmax, and what random probes make of it."""
    table = read("cited_identity")
    exact = table[table["layer"].notna()]
    ratio = exact["curvature"] / exact["half_perturbation"]
    said = f"{ratio.median():.6f} ({ratio.min():.6f} to {ratio.max():.6f})"
    rows = [[f"exact, {len(exact)} components", said, "", "", ""]]
    for r in table[table["probes"].notna()].itertuples():
        rows.append([f"{r.probes:.0f} random probes", "", f"{r.spearman:.2f}", f"{r.pearson:.2f}", f"{100 * r.negative:.0f} %"])
    return markdown(["curvature", "ratio: median (least to most)", "Spearman", "Pearson", "estimates below 0"], rows)
