"""The tables and the figure of the simplicity bias, from result tables alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lrp.errors import InputError
from lrp.figure.base import Figure
from lrp.figure.style import band, one_setting, save_figure, write_tables
from lrp.results.collect import collect_study

_KEYS = ["network", "depth"]
_MEASURED = [
    "accuracy",
    "accuracy_validation",
    "loss",
    *(f"{what}_{kind}_{moment}" for what in ("layers", "gram") for kind in ("entropy", "exp") for moment in ("initial", "trained")),
    "accuracy_pruned_mean",
]
_MEASURES = ("network", "depth", "measure", "part", "step", "index", "value")


def simplicity_markdown(table: pd.DataFrame) -> str:
    """One row per network and depth: accuracy, effective ranks (exponential; entropy in nats) before and after training."""
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
    return one_setting(table, _KEYS, _MEASURED)


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


def draw_simplicity_bias(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Effective rank by depth, the linear network's singular values over time, accuracy against sparsity of the collapsed
    networks (.png, .pdf), and the tables (.md); the tables as text, and the paths.

    Raises:
        InputError: Without the table of measures.
    """
    missing = [name for name in _MEASURES if details is None or name not in details]
    if details is None or missing:
        raise InputError(f"the table of measures lacks the columns {', '.join(missing)}")
    rows = _simplicity_rows(table)
    measures = details.drop_duplicates(subset=["seed", *_MEASURES[:-1]], keep="last")
    networks, depths = list(dict.fromkeys(rows["network"])), sorted(rows["depth"].unique())
    columns = max(2, len(networks) + 1, len(depths))
    figure, axes = plt.subplots(3, columns, figsize=(3.6 * columns, 10), squeeze=False)
    curves = _pruned_curves(table, measures)
    for network, above, below in zip(networks, axes[0], axes[2]):
        _draw_ranks(above, rows[rows["network"] == network], network, depths)
        _draw_accuracy(below, curves[curves["network"] == network], network, depths)
    linear = measures[(measures["network"] == "linear") & (measures["part"] == "network")]
    if not linear.empty:
        _draw_rank_over_time(axes[0][len(networks)], linear, depths)
        for ax, depth in zip(axes[1], depths):
            _draw_singular_values(ax, linear, depth)
    for ax in axes.flat:
        if ax.has_data():
            ax.grid(alpha=0.25)
        else:
            ax.set_axis_off()
    figure.tight_layout()
    markdown = simplicity_markdown(table) + "\n" + pruned_markdown(table, measures)
    return markdown, [*write_tables(target, markdown), *save_figure(figure, target)]


def _draw_ranks(ax: Axes, rows: pd.DataFrame, network: str, depths: list[int]) -> None:
    """Effective rank of the layers and of the Gram matrix by depth, before and after training."""
    for what, colour in (("layers", "C0"), ("gram", "C1")):
        for moment, line in (("initial", "--"), ("trained", "-")):
            values = rows.groupby("depth")[f"{what}_entropy_{moment}"].agg(["mean", "std"])
            style = {"color": colour, "linestyle": line, "marker": "o", "markersize": 3}
            ax.errorbar(values.index, values["mean"], values["std"].fillna(0), label=f"{what}, {moment}", **style)
    ax.set(title=network, xlabel="matrices per layer", ylabel="effective rank (entropy, nats)")
    ax.set(xscale="log", xticks=depths, xticklabels=depths)
    ax.set_xticks([], minor=True)
    ax.legend(fontsize=7)


def _draw_rank_over_time(ax: Axes, linear: pd.DataFrame, depths: list[int]) -> None:
    """Effective rank of the linear network's end-to-end matrix, one line per depth."""
    entropy = linear[linear["measure"] == "effective_rank_entropy"]
    for i, depth in enumerate(depths):
        line = entropy[entropy["depth"] == depth].groupby("step")["value"].mean()
        ax.plot(line.index, line, marker="o", markersize=3, color=f"C{i}", label=f"{depth} matrices per layer")
    ax.set(title="linear, end to end", xlabel="SGD step", ylabel="effective rank (entropy, nats)")
    ax.legend(fontsize=7)


def _draw_singular_values(ax: Axes, linear: pd.DataFrame, depth: int) -> None:
    """The singular values of the linear network's end-to-end matrix over time, at one depth."""
    rows = linear[(linear["measure"] == "singular_value") & (linear["depth"] == depth)]
    lines = rows.groupby(["index", "step"])["value"].mean().unstack("step")
    for k, line in lines.iterrows():
        ax.plot(line.index, line, color=plt.cm.viridis(k / max(1, len(lines) - 1)), linewidth=1.2)
    ax.set(title=f"singular values, {depth} per layer", xlabel="SGD step", ylim=(0, None))


def _draw_accuracy(ax: Axes, curves: pd.DataFrame, network: str, depths: list[int]) -> None:
    """Test accuracy of the collapsed network against sparsity, one line per depth."""
    for i, depth in enumerate(depths):
        part = curves[curves["depth"] == depth].groupby("sparsity")["value"].agg(["mean", "std"])
        ax.plot(part.index, 100 * part["mean"], marker="o", markersize=3, color=f"C{i}", label=f"{depth} matrices per layer")
        band(ax, part.index, part["mean"], part["std"], f"C{i}")
    ax.set(title=f"{network}, collapsed and pruned", xlabel="sparsity", ylabel="test accuracy (%)")
    ax.legend(fontsize=7)


FIGURE = Figure(
    "simplicity_bias", partial(collect_study, name="simplicity_bias", columns=[*_KEYS, *_MEASURED]), draw_simplicity_bias, "measures.csv",
    "The simplicity bias: effective ranks, singular values over time, and accuracy after pruning.",
)  # fmt: skip
