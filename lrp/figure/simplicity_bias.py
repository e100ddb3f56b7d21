"""The tables and the figure of the simplicity bias, from result tables alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from lrp.errors import InputError
from lrp.figure.style import _save, one_setting
from lrp.files import write_text
from lrp.study.simplicity_bias import SimplicityBias

_MEASURES = ("network", "depth", "measure", "part", "step", "index", "value")


def simplicity_markdown(table: pd.DataFrame) -> str:
    """A row a network and depth: accuracy, effective ranks (exponential; entropy in nats) before and after training."""
    rows = _simplicity_rows(table)
    head = ["network", "depth", "accuracy", "layers, initial", "layers, trained", "Gram matrix, initial", "Gram matrix, trained", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for (network, depth), part in rows.groupby(["network", "depth"], sort=False):
        ranks = [
            f"{part[f'{what}_exp_{moment}'].mean():.1f} ({part[f'{what}_entropy_{moment}'].mean():.2f})"
            for what in ("layers", "gram") for moment in ("initial", "trained")
        ]  # fmt: skip
        spread = f" ± {100 * part['accuracy'].std():.1f}" if len(part) > 1 else ""
        lines.append(f"| {network} | {depth} | {100 * part['accuracy'].mean():.1f}{spread} | " + " | ".join(ranks) + f" | {len(part)} |")
    return "\n".join(lines) + "\n"


def _simplicity_rows(table: pd.DataFrame) -> pd.DataFrame:
    columns = SimplicityBias.columns
    measured = [name for name in columns if name not in ("images", "epochs", "batch_size", "lr", "momentum", "scorer", "network", "depth")]
    return one_setting(table, ["network", "depth"], measured)


def pruned_markdown(table: pd.DataFrame, measures: pd.DataFrame) -> str:
    """Accuracy (%) of the collapsed network at each sparsity, 0 being unpruned; mean ± standard deviation over seeds."""
    curves = _pruned_curves(table, measures)
    sparsities = sorted(curves["sparsity"].unique())
    lines = ["| network | depth | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " |", "|---" * (len(sparsities) + 2) + "|"]
    for (network, depth), part in curves.groupby(["network", "depth"], sort=False):
        at = part.groupby("sparsity")["value"].agg(["mean", "std"])
        texts = [
            f"{100 * at.loc[s, 'mean']:.1f}" + (f" ± {100 * at.loc[s, 'std']:.1f}" if at.loc[s, "std"] == at.loc[s, "std"] else "")
            for s in sparsities
        ]
        lines.append(f"| {network} | {depth} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _pruned_curves(table: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    pruned = measures[measures["measure"] == "accuracy_pruned"].rename(columns={"index": "sparsity"})
    dense = _simplicity_rows(table)[["seed", "network", "depth", "accuracy"]].rename(columns={"accuracy": "value"}).assign(sparsity=0.0)
    return pd.concat([dense, pruned[["seed", "network", "depth", "sparsity", "value"]]], ignore_index=True)


def draw_simplicity_bias(table: pd.DataFrame, measures: pd.DataFrame | None, target: Path) -> list[Path]:
    """Effective rank by depth, the linear network's singular values over time, accuracy against sparsity of the collapsed
    networks (.png, .pdf), and the tables (.md). Raises InputError without the table of measures."""
    missing = [*_MEASURES] if measures is None else [name for name in _MEASURES if name not in measures]
    if missing:
        raise InputError(f"the table of measures lacks the columns {', '.join(missing)}")
    rows = _simplicity_rows(table)
    measures = measures.drop_duplicates(subset=["seed", *_MEASURES[:-1]], keep="last")
    markdown = target.parent / f"{target.name}_table.md"
    write_text(markdown, simplicity_markdown(table) + "\n" + pruned_markdown(table, measures))
    networks, depths = list(dict.fromkeys(rows["network"])), sorted(rows["depth"].unique())
    linear = measures[(measures["network"] == "linear") & (measures["part"] == "network")]
    columns = max(2, len(networks) + 1, len(depths))
    figure, axes = plt.subplots(3, columns, figsize=(3.6 * columns, 10), squeeze=False)
    for ax, network in zip(axes[0], networks):
        part = rows[rows["network"] == network]
        for what, colour in (("layers", "C0"), ("gram", "C1")):
            for moment, line in (("initial", "--"), ("trained", "-")):
                values = part.groupby("depth")[f"{what}_entropy_{moment}"].agg(["mean", "std"])
                ax.errorbar(
                    values.index,
                    values["mean"],
                    values["std"].fillna(0),
                    color=colour,
                    linestyle=line,
                    marker="o",
                    markersize=3,
                    label=f"{what}, {moment}",
                )
        ax.set(
            title=network,
            xlabel="matrices a layer",
            ylabel="effective rank (entropy, nats)",
            xscale="log",
            xticks=depths,
            xticklabels=depths,
        )
        ax.set_xticks([], minor=True)
        ax.legend(fontsize=7)
    if not linear.empty:
        ax = axes[0][len(networks)]
        found = linear[linear["measure"] == "effective_rank_entropy"]
        for i, depth in enumerate(depths):
            line = found[found["depth"] == depth].groupby("step")["value"].mean()
            ax.plot(line.index, line, marker="o", markersize=3, color=f"C{i}", label=f"{depth} matrices a layer")
        ax.set(title="linear, end to end", xlabel="SGD step", ylabel="effective rank (entropy, nats)")
        ax.legend(fontsize=7)
        singular = linear[linear["measure"] == "singular_value"]
        for ax, depth in zip(axes[1], depths):
            part = singular[singular["depth"] == depth].groupby(["index", "step"])["value"].mean().unstack("step")
            for k, line in part.iterrows():
                ax.plot(line.index, line, color=plt.cm.viridis(k / max(1, len(part) - 1)), linewidth=1.2)
            ax.set(title=f"singular values, {depth} a layer", xlabel="SGD step", ylim=(0, None))
    curves = _pruned_curves(table, measures)
    for ax, network in zip(axes[2], networks):
        for i, depth in enumerate(depths):
            part = curves[(curves["network"] == network) & (curves["depth"] == depth)].groupby("sparsity")["value"].agg(["mean", "std"])
            spread = part["std"].fillna(0)
            ax.plot(part.index, 100 * part["mean"], marker="o", markersize=3, color=f"C{i}", label=f"{depth} matrices a layer")
            ax.fill_between(part.index, 100 * (part["mean"] - spread), 100 * (part["mean"] + spread), color=f"C{i}", alpha=0.15)
        ax.set(title=f"{network}, collapsed and pruned", xlabel="sparsity", ylabel="test accuracy (%)")
        ax.legend(fontsize=7)
    for ax in axes.flat:
        if ax.has_data():
            ax.grid(alpha=0.25)
        else:
            ax.set_axis_off()
    return [markdown, *_save(figure, target)]
