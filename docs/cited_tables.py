"""The tables of docs/results/cited.md, and what was found.

What is first or behind was judged by a reader; the numbers are computed.
"""

# ruff: noqa: E501  (sentences that become lines of pages)

from __future__ import annotations

import itertools

import pandas as pd
from layout import bullets, markdown, read, removed, said

UNITS = {"svd": "singular triplets", "filters": "filters", "entries": "weights"}
TREATMENTS = {"nothing recovered": "nothing", "batch norm re-estimated": "batch norm", "compensated": "compensated"}


def cited() -> str:
    """One row per network, unit and score: accuracy by treatment and sparsity, and the seconds and memory of the score."""
    table, costs = read("cited_summary"), read("cited_cost").set_index(["model", "decomposition", "scorer"])
    dense = 100 * read("cited").groupby("model")["accuracy_dense"].first()
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
            rows.append([f"{model} ({dense[model]:.2f})", UNITS[unit], score, *cells, *spent])
    header = [f"{TREATMENTS[treatment]}, {removed(sparsity)}" for treatment, sparsity in columns]
    return markdown(["network (dense)", "unit", "score", *header, "seconds", "MiB"], rows)


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


def cited_said() -> str:
    table = 100 * read("cited_summary").set_index(["model", "decomposition", "treatment", "score", "sparsity"]).sort_index()
    held, spread = table["mean"], table["std"]
    costs = read("cited_cost").query("decomposition == 'svd'").set_index("scorer")["seconds"]
    probes = read("cited_identity").set_index("probes")
    plain, again, refitted = TREATMENTS

    def kept(score: str, *shares: float, model: str = "resnet20", unit: str = "svd", treatment: str = refitted) -> str:
        return said(held[model, unit, treatment, score, share] for share in shares or (0.8, 0.9, 0.95)) + " %"

    def best(unit: str, treatment: str, share: float) -> float:
        return held["resnet20", unit, treatment].xs(share, level="sparsity").max()

    vgg16 = {score: kept(score, 0.9, 0.95, model="vgg16") for score in ("snip", "perturbation", "magnitude", "lamp")}
    return bullets(
        f"**The paper's own scores are first on the ResNet-20** (singular triplets, compensated, at 80, 90 and 95 %): variance keeps "
        f"{kept('variance')}, perturbation {kept('perturbation')}. **On the VGG16 SNIP is first** at 90 and 95 %: {vgg16['snip']} against "
        f"perturbation's {vgg16['perturbation']} (one seed). So no score is best everywhere.",
        f"**LAMP needs no data and comes near at 80 % only**: {kept('lamp')}. The plain singular value has {kept('magnitude')}, and on the VGG16 "
        f"{vgg16['magnitude']} at 90 and 95 % against LAMP's {vgg16['lamp']}. Dividing by what is left of a layer does not help singular triplets "
        "of itself.",
        f"**On the ResNet-20 scores by labels are behind**: at 90 % SNIP has {kept('snip', 0.9)} (± {spread['resnet20', 'svd', refitted, 'snip', 0.9]:.1f} "
        f"from seed to seed), curvature {kept('curvature', 0.9)}, GraSP {kept('grasp', 0.9)}.",
        f"**What follows the score matters more than the score**: at 80 % a random choice of triplets, compensated, keeps {kept('random', 0.8)}; the best "
        f"score keeps {best('svd', plain, 0.8):.1f} % without compensation and {best('svd', again, 0.8):.1f} % with new statistics of batch norm.",
        f"**Filters and weights**: with 80 % of the filters' parameters removed the best score has {best('filters', plain, 0.8):.1f} % until layers are "
        f"refitted, then {best('filters', refitted, 0.8):.1f} %. Single weights bear far more ({best('entries', again, 0.8):.1f} %, batch norm re-estimated, "
        "nothing refitted), but such a network is as large and as slow as before. By weights LAMP is first at 90 % "
        f"({kept('lamp', 0.9, unit='entries', treatment=again)}), as its paper has it; perturbation, which looks at one weight at a time, has "
        f"{kept('perturbation', 0.9, unit='entries', treatment=again)}.",
        f"**Curvature by random probes is mostly noise**: of 32 probes {100 * probes.loc[32, 'negative']:.0f} % of the estimates are negative. Half the "
        "perturbation of the softmax is the same quantity, exactly, without labels, in "
        f"1/{costs['curvature'] / costs['perturbation']:.0f} of the time ([below](#how-the-scores-relate)).",
    )
