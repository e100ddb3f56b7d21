"""The tables and the figure of the simplicity bias, from result tables alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from lrp.errors import InputError
from lrp.figure.base import Figure
from lrp.figure.palette import BLUE, COLOURS, MARKERS, STROKES, VERMILION, Look
from lrp.figure.style import (
    PAGE,
    accuracy_axis,
    band,
    curve,
    grid,
    name_lines,
    one_setting,
    removed_axis,
    save_figure,
    styled,
    write_tables,
)
from lrp.results.collect import collect_study
from lrp.results.labels import named

_KEYS = ["network", "depth"]
_MEASURED = [
    "accuracy",
    "accuracy_validation",
    "loss",
    *(f"{what}_{kind}_{moment}" for what in ("layers", "gram") for kind in ("entropy", "exp") for moment in ("initial", "trained")),
    "accuracy_pruned_mean",
]
_SETTLED = ["rate", "epochs_trained", "accuracy_compensated_mean"]  # of networks that are trained until their loss stalls
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
    return one_setting(table, _KEYS, [*_MEASURED, *_SETTLED])


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


@styled
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
    curves = _pruned_curves(table, measures)
    linear = measures[(measures["network"] == "linear") & (measures["part"] == "network")]
    columns, lines = max(len(networks), len(depths) if len(linear) else 1), 3 if len(linear) else 2
    figure, axes = grid(lines, columns, PAGE, 1.9 * lines)
    to_name = []
    for i, network in enumerate(networks):
        for ax, found in (
            (axes[0][i], _draw_ranks(axes[0][i], rows[rows["network"] == network], network, depths)),
            (axes[1][i], _draw_accuracy(axes[1][i], curves[curves["network"] == network], depths, curves)),
        ):
            if i == len(networks) - 1:
                to_name.append((ax, found))
    if len(linear):
        most = linear[linear["measure"] == "singular_value"].groupby(["depth", "index", "step"])["value"].mean().max()
        for ax, depth in zip(axes[2], depths):
            _draw_singular_values(ax, linear, depth, 1.03 * most)
    for row, label in zip(axes, ("effective rank (nats)", "pruned: accuracy (%)", "singular value")):
        row[0].set_ylabel(label)
    for ax in axes.flat:
        if not ax.has_data():
            ax.set_axis_off()
    for ax, found in to_name:
        name_lines(ax, found, room=len(networks) == columns)
    markdown = simplicity_markdown(table) + "\n" + pruned_markdown(table, measures)
    return markdown, [*write_tables(target, markdown), *save_figure(figure, target)]


def _draw_ranks(ax: Axes, rows: pd.DataFrame, network: str, depths: list[int]) -> list[tuple]:
    """Effective rank of the layers and of the Gram matrix by depth, before and after training; what ``name_lines`` takes."""
    found = []
    for what, colour, name in (("layers", BLUE, "layers"), ("gram", VERMILION, "Gram matrix")):
        for moment, stroke, marker in (("initial", STROKES[2], "s"), ("trained", STROKES[0], "o")):
            values = rows.groupby("depth")[f"{what}_entropy_{moment}"].agg(["mean", "std"])
            own = Look(colour, marker, stroke, hollow=moment == "initial")
            curve(ax, values.index, values["mean"], own, 0.8)
            spread = values["std"].fillna(0)
            ax.fill_between(values.index, values["mean"] - spread, values["mean"] + spread, color=colour, alpha=0.18, linewidth=0)
            found.append((f"{name}, {moment}", own, values.index.to_numpy(float), values["mean"].to_numpy(float)))
    ax.set(title=f"{named(network)} network", xlabel="matrices per layer", ylim=(0, 4.2))
    ax.set(xscale="log", xticks=depths, xticklabels=depths)
    ax.set_xticks([], minor=True)
    return found


def _draw_singular_values(ax: Axes, linear: pd.DataFrame, depth: int, most: float) -> None:
    """The singular values of the linear network's end-to-end matrix over time, at one depth; above, the effective rank at both ends."""
    rows = linear[(linear["measure"] == "singular_value") & (linear["depth"] == depth)]
    lines = rows.groupby(["index", "step"])["value"].mean().unstack("step")
    for k, line in lines.iterrows():
        ax.plot(line.index, line, color=colormaps["cividis"](0.9 * k / max(1, len(lines) - 1)), linewidth=1.1)
    ranks = linear[(linear["measure"] == "effective_rank_entropy") & (linear["depth"] == depth)].groupby("step")["value"].mean()
    moved = f"\nrank {ranks.iloc[0]:.2f} to {ranks.iloc[-1]:.2f} nats" if len(ranks) else ""
    ax.set_title(f"linear, {depth} per layer{moved}", fontsize=7)
    ax.set(xlabel="SGD step", ylim=(0, most))


def _draw_accuracy(ax: Axes, curves: pd.DataFrame, depths: list[int], of_all: pd.DataFrame) -> list[tuple]:
    """Test accuracy of the collapsed network against sparsity, one line per depth; what ``name_lines`` takes."""
    means = of_all.groupby(["network", "depth", "sparsity"])["value"].mean()
    accuracy_axis(ax, list(100 * means))
    removed_axis(ax, list(curves["sparsity"]), "removed (%)")
    found = []
    for i, depth in enumerate(depths):
        part = curves[curves["depth"] == depth].groupby("sparsity")["value"].agg(["mean", "std"])
        own = Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], STROKES[i % len(STROKES)], i % 2 == 1)
        curve(ax, part.index, 100 * part["mean"], own, i / max(1, len(depths) - 1))
        band(ax, part.index, part["mean"], part["std"], own.colour)
        found.append(
            (f"{depth} matri{'x' if depth == 1 else 'ces'} per layer", own, part.index.to_numpy(float), 100 * part["mean"].to_numpy(float))
        )
    return found


FIGURE = Figure(
    "simplicity_bias", partial(collect_study, name="simplicity_bias", columns=[*_KEYS, *_MEASURED]), draw_simplicity_bias, "measures.csv",
    "The simplicity bias: effective ranks, singular values over time, and accuracy after pruning.",
)  # fmt: skip
